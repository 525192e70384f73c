"use strict";
// The page is whole without this: it adds tooltips that fit the window, sorting and filtering.

const tip = document.createElement("div");
tip.id = "tip";
tip.setAttribute("role", "tooltip");
tip.hidden = true;
document.body.append(tip);

function showTip(element) {
  tip.textContent = element.dataset.tip;
  tip.hidden = false;
  const at = element.getBoundingClientRect();
  const left = Math.min(Math.max(at.left, 8), innerWidth - tip.offsetWidth - 8);
  const above = at.top - tip.offsetHeight - 8;
  tip.style.left = `${left}px`;
  tip.style.top = `${above > 8 ? above : at.bottom + 8}px`;
}

for (const element of document.querySelectorAll("dfn[title], .pill[title]")) {
  element.dataset.tip = element.title;
  element.removeAttribute("title");
  element.setAttribute("aria-description", element.dataset.tip);
  element.addEventListener("mouseenter", () => showTip(element));
  element.addEventListener("focus", () => showTip(element));
  element.addEventListener("mouseleave", () => { tip.hidden = true; });
  element.addEventListener("blur", () => { tip.hidden = true; });
}
addEventListener("scroll", () => { tip.hidden = true; }, { passive: true, capture: true });

function sortKey(row, column) {
  const cell = row.cells[column];
  const number = cell.querySelector("data");
  return number ? Number(number.value) : cell.textContent.trim();
}

const order = new Intl.Collator(undefined, { numeric: true });

function compare(a, b) {
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;  // dashes go last
  return typeof a === "number" ? a - b : order.compare(a, b);
}

function sortBy(head) {
  const table = head.closest("table");
  const descending = head.getAttribute("aria-sort") === "ascending";
  const column = head.cellIndex;
  const rows = [...table.tBodies[0].rows].map((row) => [sortKey(row, column), row]);
  rows.sort((a, b) => (descending ? compare(b[0], a[0]) : compare(a[0], b[0])));
  table.tBodies[0].append(...rows.map((pair) => pair[1]));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
}

for (const head of document.querySelectorAll("th[data-sort]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  button.addEventListener("click", () => sortBy(head));
  head.append(button);
}

for (const form of document.querySelectorAll(".find")) {
  const rows = [...form.parentElement.querySelector("table").tBodies[0].rows];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const find = () => {
    const words = form.elements.words.value.trim().toLowerCase();
    const moved = form.elements.moved?.checked ?? false;
    const over = form.elements.over?.checked ?? false;
    let shown = 0;
    rows.forEach((row, number) => {
      row.hidden = !((!words || texts[number].includes(words))
        && (!moved || "moved" in row.dataset) && (!over || "over" in row.dataset));
      shown += !row.hidden;
    });
    const any = words || moved || over;
    form.querySelector("output").textContent = any ? `${shown} of ${rows.length} prompts` : "";
  };
  form.hidden = false;
  form.addEventListener("input", find);
  form.addEventListener("submit", (event) => event.preventDefault());
}

const filter = document.querySelector(".filter");

function applyFilter() {
  const wanted = filter.elements;
  const words = wanted.words.value.trim().toLowerCase();
  const changed = wanted.changed?.checked ?? false;
  const any = wanted.suite.value || wanted.subject.value || words || changed;
  let shown = 0;
  for (const suite of document.querySelectorAll("details.suite")) {
    let inSuite = 0;
    for (const prompt of suite.querySelectorAll(".prompt")) {
      const hit = (!wanted.suite.value || suite.dataset.suite === wanted.suite.value)
        && (!wanted.subject.value || prompt.dataset.subject === wanted.subject.value)
        && (!words || prompt.querySelector("bdi").textContent.toLowerCase().includes(words));
      let pairs = 0;
      for (const pair of prompt.querySelectorAll(".pair")) {
        pair.hidden = changed && !pair.classList.contains("changed");
        pairs += !pair.hidden;
      }
      prompt.hidden = !hit || !pairs;
      inSuite += !prompt.hidden;
    }
    suite.hidden = any && !inSuite;
    if (any && inSuite) suite.open = true;
    shown += inSuite;
  }
  filter.querySelector("output").textContent = any ? `${shown} prompts` : "";
}

if (filter) {
  filter.hidden = false;
  filter.addEventListener("input", applyFilter);
  filter.addEventListener("submit", (event) => event.preventDefault());
}
