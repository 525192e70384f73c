"""Unskew: measure the skew in what a text-to-image model shows, train it away, prove the change."""

import os

# transformers warns at import that torchvision is missing; nothing here needs it.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
