import { byId } from "/view.js";

/** In a narrow window the rooms and the people come in from the side. */
function open(name) {
  closeDrawers();
  byId(name).dataset.open = "";
  byId(`open-${name}`).setAttribute("aria-expanded", "true");
  byId("veil").hidden = false;
  byId(name).querySelector("button, input")?.focus();
}

/** @returns whether one was open. */
export function closeDrawers() {
  let closed = false;
  for (const name of ["rooms", "people"]) {
    closed ||= "open" in byId(name).dataset;
    delete byId(name).dataset.open;
    byId(`open-${name}`).setAttribute("aria-expanded", "false");
  }
  byId("veil").hidden = true;
  return closed;
}

byId("open-rooms").addEventListener("click", () => open("rooms"));
byId("open-people").addEventListener("click", () => open("people"));
byId("veil").addEventListener("click", closeDrawers);
