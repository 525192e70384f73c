"use strict";
// Labels never leave this machine: they are kept in this browser until they are downloaded.
const data = JSON.parse(document.getElementById("data").textContent);
const key = `unskew-labels-${data.run}-${data.sample}`;
const by = (id) => document.getElementById(id);
let labels = {};  // task -> value, null for "cannot tell"
let undone = [];  // [place, task, had a label, the label before]
let at = 0;

function load() {
  try {
    const kept = JSON.parse(localStorage.getItem(key) || "{}");
    labels = Object.assign({}, kept.labels);
    by("rater").value = kept.rater || "";
  } catch { warn(); }
  const open = data.tasks.findIndex((task) => !(task.id in labels));
  at = open < 0 ? 0 : open;
}

function keep() {
  try { localStorage.setItem(key, JSON.stringify({ rater: by("rater").value, labels })); }
  catch { warn(); }
}

function warn() {
  by("saved").textContent = "This browser keeps nothing: download before you close the page.";
  by("saved").className = "warn";
}

function show() {
  const task = data.tasks[at];
  const attribute = data.attributes[task.attribute];
  by("picture").src = data.pictures[task.picture];
  by("question").textContent = attribute.title;
  by("caveat").textContent = attribute.caveat;
  const answers = [...attribute.values, null].map((value, n, all) => {
    const digit = n === all.length - 1 ? 0 : n + 1;
    const button = document.createElement("button");
    button.type = "button";
    const mark = document.createElement("kbd");
    mark.textContent = digit <= 9 ? digit : " ";
    button.append(mark, value === null ? "cannot tell" : value);
    button.setAttribute("aria-pressed", String(task.id in labels && labels[task.id] === value));
    button.addEventListener("click", () => answer(value));
    return button;
  });
  by("answers").replaceChildren(...answers);
  const done = Object.keys(labels).length;
  by("progress").value = done;
  by("where").textContent = `Picture ${at + 1} of ${data.tasks.length}, ${done} labelled.`
    + (done === data.tasks.length ? " All done: download the labels." : "");
}

function answer(value) {
  const id = data.tasks[at].id;
  undone.push([at, id, id in labels, labels[id]]);
  labels[id] = value;
  keep();
  move(1);
}

function undo() {
  if (!undone.length) return;
  const [place, id, had, before] = undone.pop();
  if (had) labels[id] = before; else delete labels[id];
  at = place;
  keep();
  show();
}

function move(steps) {
  at = Math.min(Math.max(at + steps, 0), data.tasks.length - 1);
  show();
}

function download() {
  const rater = by("rater").value.trim().toLowerCase().replace(/[^a-z0-9]+/g, "-")
    .replace(/^-+|-+$/g, "") || "rater";
  const file = { schema_version: 1, run: data.run, sample: data.sample, rater, labels };
  const link = document.createElement("a");
  const blob = new Blob([JSON.stringify(file, null, 2)], { type: "application/json" });
  link.href = URL.createObjectURL(blob);
  link.download = `labels-${rater}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

addEventListener("keydown", (event) => {
  if (event.target.tagName === "INPUT" || event.ctrlKey || event.metaKey || event.altKey) return;
  const values = data.attributes[data.tasks[at].attribute].values;
  if (event.key === "ArrowLeft") move(-1);
  else if (event.key === "ArrowRight") move(1);
  else if (event.key === "u" || event.key === "U" || event.key === "Backspace") undo();
  else if (event.key === "0") answer(null);
  else if (/^[1-9]$/.test(event.key) && values[event.key - 1] !== undefined) {
    answer(values[event.key - 1]);
  } else return;
  event.preventDefault();
});
by("rater").addEventListener("input", keep);
by("download").addEventListener("click", download);
load();
show();
