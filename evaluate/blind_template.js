"use strict";
// Choices never leave this machine: they are kept in this browser until they are downloaded.
const data = JSON.parse(document.getElementById("data").textContent);
const key = `unskew-blind-${data.run}-${data.sample}`;
const by = (id) => document.getElementById(id);
const sides = ["left", "right", "tie"];
let choices = {};  // pair -> left, right or tie
let undone = [];  // [place, pair, the choice before or undefined]
let at = 0;

function load() {
  try {
    const kept = JSON.parse(localStorage.getItem(key) || "{}");
    choices = Object.assign({}, kept.choices);
    by("rater").value = kept.rater || "";
  } catch { warn(); }
  const open = data.pairs.findIndex((pair) => !(pair.id in choices));
  at = open < 0 ? 0 : open;
}

function keep() {
  try { localStorage.setItem(key, JSON.stringify({ rater: by("rater").value, choices })); }
  catch { warn(); }
}

function warn() {
  by("saved").textContent = "This browser keeps nothing: download before you close the page.";
  by("saved").className = "warn";
}

function show() {
  const pair = data.pairs[at];
  by("asked").textContent = `\u201c${pair.text}\u201d`;
  for (const side of ["left", "right"]) by(side).firstElementChild.src = data.pictures[pair[side]];
  for (const side of sides) by(side).setAttribute("aria-pressed", String(choices[pair.id] === side));
  const done = Object.keys(choices).length;
  by("progress").value = done;
  by("where").textContent = `Pair ${at + 1} of ${data.pairs.length}, ${done} compared.`
    + (done === data.pairs.length ? " All done: download the choices." : "");
}

function choose(side) {
  const id = data.pairs[at].id;
  undone.push([at, id, choices[id]]);
  choices[id] = side;
  keep();
  move(1);
}

function undo() {
  if (!undone.length) return;
  const [place, id, before] = undone.pop();
  if (before === undefined) delete choices[id]; else choices[id] = before;
  at = place;
  keep();
  show();
}

function move(steps) {
  at = Math.min(Math.max(at + steps, 0), data.pairs.length - 1);
  show();
}

function download() {
  const rater = by("rater").value.trim().toLowerCase().replace(/[^a-z0-9]+/g, "-")
    .replace(/^-+|-+$/g, "") || "rater";
  const file = { schema_version: 1, run: data.run, sample: data.sample, rater, choices };
  const link = document.createElement("a");
  const blob = new Blob([JSON.stringify(file, null, 2)], { type: "application/json" });
  link.href = URL.createObjectURL(blob);
  link.download = `choices-${rater}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

addEventListener("keydown", (event) => {
  if (event.target.tagName === "INPUT" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "ArrowLeft") move(-1);
  else if (event.key === "ArrowRight") move(1);
  else if (event.key === "u" || event.key === "U" || event.key === "Backspace") undo();
  else if (event.key === "1") choose("left");
  else if (event.key === "2") choose("right");
  else if (event.key === "0") choose("tie");
  else return;
  event.preventDefault();
});
for (const side of sides) by(side).addEventListener("click", () => choose(side));
by("rater").addEventListener("input", keep);
by("download").addEventListener("click", download);
load();
show();
