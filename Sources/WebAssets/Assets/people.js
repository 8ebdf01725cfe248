import { avatar, byId, element, nameList } from "/view.js";

const order = { online: 0, away: 1, busy: 2 };
const words = { away: "away", busy: "busy" };

/** The list of who is here: the most present first. */
export function showPeople({ members, count }, user) {
  const people = [...members].sort(
    (a, b) => (order[a.status] ?? 0) - (order[b.status] ?? 0) || a.user.localeCompare(b.user),
  );
  byId("people-list").replaceChildren(
    ...people.map((person) => {
      const status = person.status ?? "online";
      const face = avatar(person.user, { small: true, status });
      const name = element("span", { className: "name", textContent: person.user, title: person.user });
      const row = element("li", { className: "person", dataset: { user: person.user } }, face, name);
      const state = [person.user === user ? "you" : "", words[status]].filter(Boolean).join(", ");
      if (state) row.append(element("span", { className: "state", textContent: state }));
      return row;
    }),
  );
  const more = count - people.length;
  byId("people-more").hidden = more <= 0;
  byId("people-more").textContent = `and ${more} more`;
  byId("people-count").textContent = count;
  byId("people-label").textContent = `Here now · ${count}`;
}

export function showTyping({ typing }) {
  const place = byId("typing");
  if (!typing.length) return place.replaceChildren();
  const dots = element("span", { className: "dots", "aria-hidden": "true" }, ...[0, 1, 2].map(() => element("i")));
  place.replaceChildren(dots, ...nameList(typing), typing.length === 1 ? " is typing" : " are typing");
}
