/** Small pieces of the page. Whatever comes from a person is set by textContent, never parsed. */

export const byId = (id) => document.getElementById(id);

export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  const { dataset, ...rest } = properties;
  for (const [name, value] of Object.entries(rest)) {
    if (name.startsWith("aria-") || name === "role") node.setAttribute(name, value);
    else node[name] = value;
  }
  Object.assign(node.dataset, dataset);
  node.append(...children);
  return node;
}

/** An icon of one stroked path on a 20 × 20 grid. */
export function icon(path) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 20 20");
  svg.setAttribute("aria-hidden", "true");
  const shape = document.createElementNS(space, "path");
  shape.setAttribute("d", path);
  svg.append(shape);
  return svg;
}

function initials(name) {
  const words = name.split(/[\s._@-]+/u).filter(Boolean);
  const letters = words.length > 1 ? words.slice(0, 2).map((word) => [...word][0]) : [...(words[0] ?? name)].slice(0, 2);
  return letters.join("").toLocaleUpperCase();
}

/** The same name has the same colour in every window. */
function hue(name) {
  let hash = 2166136261;
  for (const character of name) hash = Math.imul(hash ^ character.codePointAt(0), 16777619);
  hash = Math.imul(hash ^ (hash >>> 15), 0x85ebca6b); // FNV alone spreads short names badly
  return (hash >>> 24) % 8;
}

export function paintAvatar(node, name, status) {
  node.className = `avatar hue-${hue(name)}${node.classList.contains("small") ? " small" : ""}`;
  node.textContent = initials(name);
  node.setAttribute("aria-hidden", "true");
  if (status) node.dataset.status = status;
}

export function avatar(name, { small = false, status } = {}) {
  const node = element("span", { className: small ? "small" : "" });
  paintAvatar(node, name, status);
  return node;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });
const weekday = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const fullDay = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "long", year: "numeric" });
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

export const timeText = (ts) => clock.format(ts);
/** For the narrow margin: the time without AM or PM. */
export const shortTimeText = (ts) =>
  clock.formatToParts(ts).filter(({ type }) => ["hour", "minute"].includes(type)).map(({ value }) => value).join(":");
export const exactText = (ts) => exact.format(ts);
export const dayKey = (ts) => new Date(ts).toDateString();

export function dayText(ts, now = Date.now()) {
  if (dayKey(ts) === dayKey(now)) return "Today";
  const yesterday = new Date(now);
  yesterday.setDate(yesterday.getDate() - 1);
  if (dayKey(ts) === yesterday.toDateString()) return "Yesterday";
  return (new Date(ts).getFullYear() === new Date(now).getFullYear() ? weekday : fullDay).format(ts);
}

const link = /https?:\/\/[^\s<>"']+[^\s<>"'.,;:!?)\]}]/gu;
const onlyEmoji = /^(?:\p{Extended_Pictographic}|\p{Emoji_Component}|\s){1,16}$/u;

/** The text of a message as nodes, with its web addresses as links. */
export function messageText(text) {
  const paragraph = element("div", { className: "text" });
  let end = 0;
  for (const match of text.matchAll(link)) {
    paragraph.append(text.slice(end, match.index));
    paragraph.append(
      element("a", { href: match[0], target: "_blank", rel: "noopener noreferrer nofollow", textContent: match[0] }),
    );
    end = match.index + match[0].length;
  }
  paragraph.append(text.slice(end));
  if (onlyEmoji.test(text) && /\p{Extended_Pictographic}/u.test(text)) paragraph.classList.add("emoji");
  return paragraph;
}

/** "Ann", "Ann and Bo", "Ann, Bo and 3 others"; the names are bold. */
export function nameList(users) {
  const bold = (name) => element("b", { textContent: name });
  if (users.length === 1) return [bold(users[0])];
  if (users.length === 2) return [bold(users[0]), " and ", bold(users[1])];
  const others = users.length - 2;
  return [bold(users[0]), ", ", bold(users[1]), ` and ${others} ${others === 1 ? "other" : "others"}`];
}
