// Sorts and filters the rollouts of stage 2.
{
  const form = document.getElementById("rollout-filters");
  if (form) {
    const gallery = document.getElementById("rollout-gallery");
    const more = document.getElementById("more-rollouts");
    const cards = [...gallery.children];
    const page = Number(gallery.dataset.page);
    let limit = page;

    function show() {
      const { order, ...want } = Object.fromEntries(new FormData(form));
      const [key, direction] = order.split("-");
      const sign = direction === "down" ? -1 : 1;
      const like = cards.filter((card) =>
        Object.entries(want).every(([field, value]) => !value || card.dataset[field] === value)
      );
      // The sort is stable: cards of one step stay in the order of their groups.
      like.sort((a, b) => sign * (Number(a.dataset[key]) - Number(b.dataset[key])));
      const shown = new Set(like.slice(0, limit));
      for (const card of cards) card.hidden = !shown.has(card);
      gallery.append(...like);
      document.getElementById("rollouts-shown").textContent = `${shown.size} of ${like.length} shown`;
      document.getElementById("no-rollouts").hidden = like.length > 0;
      more.hidden = like.length <= limit;
    }

    function restart() {
      limit = page;
      show();
    }

    form.addEventListener("input", restart);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(restart));
    more.addEventListener("click", () => {
      limit += page;
      show();
    });
    form.hidden = false;
    show();
  }
}
