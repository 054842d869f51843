// Times of whoever looks, a filter for rows, keys for views. The page does without it.
"use strict";

for (const time of document.querySelectorAll("time[datetime]")) {
  const when = new Date(time.dateTime);
  if (!Number.isNaN(when.getTime())) {
    time.title = time.textContent;
    time.textContent = when.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
  }
}

const filter = document.getElementById("filter");
const rows = [...document.querySelectorAll("section.table tbody tr")];
if (filter && rows.length > 5) {
  const texts = rows.map((row) => row.textContent.toLowerCase());
  filter.parentElement.hidden = false;
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows.forEach((row, index) => {
      row.hidden = !words.every((word) => texts[index].includes(word));
    });
  });
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && typing === filter && filter) {
    filter.value = "";
    filter.dispatchEvent(new Event("input"));
    filter.blur();
  } else if (!typing && event.key === "/" && filter && !filter.parentElement.hidden) {
    event.preventDefault();
    filter.focus();
  } else if (!typing && /^[1-9]$/.test(event.key)) {
    document.querySelectorAll(".views a")[Number(event.key) - 1]?.click();
  }
});
