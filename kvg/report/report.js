"use strict";
// Filters of the gallery. The filter values are stored after the "#" of the address, so that a view can be shared.
const form = document.getElementById("filters");

// The image data of a picture on several cards is in the page only once.
for (const image of document.querySelectorAll("img[data-same]")) {
  image.src = document.getElementById(image.dataset.same).src;
}

if (form) {
  const gallery = document.getElementById("gallery");
  const cards = [...gallery.querySelectorAll(".card")].map((card) => ({
    card,
    name: plain(card.querySelector(".entity").textContent),
    answers: [...card.querySelectorAll(".said")],
    boxes: [...card.querySelectorAll("rect.answer")],
  }));

  function plain(text) {
    return text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  }

  function filterValues() {
    return Object.fromEntries([...new FormData(form)].filter(([, value]) => value.trim()));
  }

  function isLike({ card, name, answers }, want) {
    for (const field of ["set", "category", "split", "knowledge"]) {
      if (want[field] && card.dataset[field] !== want[field]) return false;
    }
    if (want.name && !name.includes(plain(want.name.trim()))) return false;
    if (want.verdict === "differ" && new Set(answers.map((said) => said.dataset.verdict)).size < 2) return false;
    // Run, verdict and reasoning must match in the same answer.
    return answers.some(
      ({ dataset }) =>
        (!want.run || dataset.run === want.run) &&
        (!want.verdict || want.verdict === "differ" || dataset.verdict === want.verdict) &&
        (!want.reasoning || dataset.reasoning === want.reasoning)
    );
  }

  function show() {
    const want = filterValues();
    let num = 0;
    for (const one of cards) {
      const like = isLike(one, want);
      one.card.hidden = !like;
      num += like;
      for (const said of one.answers) said.hidden = Boolean(want.run) && said.dataset.run !== want.run;
      for (const box of one.boxes) {
        const isOther = want.run && box.dataset.run !== undefined && box.dataset.run !== want.run;
        box.setAttribute("display", isOther ? "none" : "inline");
      }
    }
    gallery.classList.toggle("one", Boolean(want.run));
    document.getElementById("shown").textContent = `${num} of ${cards.length} shown`;
    document.getElementById("none").hidden = num > 0;
  }

  function write() {
    const text = new URLSearchParams(filterValues()).toString();
    history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
  }

  function read() {
    const text = location.hash.slice(1);
    if (!text.includes("=")) return; // a link to a section of the page
    const values = new URLSearchParams(text);
    for (const field of form.elements) {
      if (!field.name) continue;
      field.value = values.get(field.name) ?? "";
      if (field.selectedIndex === -1) field.value = ""; // an option that this page does not have
    }
    show();
    document.getElementById("cases").scrollIntoView();
  }

  form.addEventListener("input", () => {
    show();
    write();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => {
    setTimeout(() => {
      show();
      write();
    });
  });
  window.addEventListener("hashchange", read);
  form.hidden = false;
  show();
  read();
}
