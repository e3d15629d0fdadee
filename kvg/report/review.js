"use strict";
// Ticks live in the browser until they are saved: by box, so that another box of the same picture has none.
const STORE = "kvg-boxes";
const page = JSON.parse(document.getElementById("page").textContent);
const figures = [...document.querySelectorAll("figure")];
let memory = {}; // where the browser keeps nothing for files

function kept() {
  try {
    return JSON.parse(localStorage.getItem(STORE)) || {};
  } catch {
    return memory;
  }
}

function keep(id, bad) {
  const all = kept(); // anew each time: another page may have written in between
  all[id] = bad;
  memory = all;
  try {
    localStorage.setItem(STORE, JSON.stringify(all));
  } catch {
    // the ticks last as long as the page
  }
}

function isBad(box, all) {
  return all[box.id] === undefined ? box.bad : all[box.id];
}

const SAVED = `${STORE}/${page.file}`;
let saved = null; // what has been saved last, as text
try {
  saved = localStorage.getItem(SAVED);
} catch {
  // nothing is kept
}

function lines() {
  const all = kept();
  const told = page.boxes.filter((box) => box.bad || all[box.id] !== undefined);
  return told.map((box) => ({ source: box.source, ref: box.ref, box_px: box.box_px, bad: isBad(box, all) }));
}

function show() {
  const all = kept();
  let num = 0, open = 0;
  page.boxes.forEach((box, n) => {
    const bad = isBad(box, all);
    num += bad;
    open += bad !== box.bad;
    figures[n].setAttribute("aria-checked", String(bad));
  });
  const isSaved = saved !== null && saved === JSON.stringify(lines());
  const rest = isSaved ? `saved as ${page.file}: put it into this page's folder` : open ? "not saved yet" : "";
  document.getElementById("count").textContent = `${num} of ${page.boxes.length} ticked as bad`;
  document.getElementById("state").textContent = rest;
}

function toggle(n) {
  keep(page.boxes[n].id, !isBad(page.boxes[n], kept()));
  show();
}

function step(n, by) {
  const seen = figures.filter((figure) => figure.offsetParent !== null);
  const next = seen[seen.indexOf(figures[n]) + by];
  if (next) next.focus();
}

figures.forEach((figure, n) => {
  figure.addEventListener("click", () => toggle(n));
  figure.addEventListener("keydown", (event) => {
    if (event.key === " " || event.key === "Enter") toggle(n);
    else if (event.key === "ArrowRight") step(n, 1);
    else if (event.key === "ArrowLeft") step(n, -1);
    else return;
    event.preventDefault();
  });
});

document.getElementById("only").addEventListener("change", (event) => {
  document.body.classList.toggle("only", event.target.checked);
});

document.getElementById("save").addEventListener("click", () => {
  const told = lines(), when = Date.now();
  const text = told.map((line) => JSON.stringify({ ...line, saved: when }) + "\n").join("");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/jsonl" }));
  link.download = page.file;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  saved = JSON.stringify(told);
  try {
    localStorage.setItem(SAVED, saved);
  } catch {
    // the note lasts as long as the page
  }
  show();
});

window.addEventListener("storage", show);
window.addEventListener("pageshow", show); // also where the browser brings an old page back
show();
