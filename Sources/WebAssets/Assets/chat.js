import { Martlet, isRoomName } from "/martlet.js";
import { ConnectionView } from "/connection.js";
import { closeDrawers } from "/drawers.js";
import { showPeople, showTyping } from "/people.js";
import { Timeline } from "/timeline.js";
import { byId, element, icon, paintAvatar } from "/view.js";

const root = document.documentElement;
const log = byId("log");
const input = byId("input");
const query = new URLSearchParams(location.search);
const utf8 = new TextEncoder();

let chat; // the connection, while signed in
let user;
let secret; // the token, where the server asks for one
let rooms = new Map(); // name → what this window knows of the room
let current;
let stuck = true; // the newest line is in view

const remembered = {
  get(key) {
    try { return localStorage.getItem(`martlet.${key}`) ?? ""; } catch { return ""; }
  },
  set(key, value) {
    try { localStorage.setItem(`martlet.${key}`, value); } catch { /* private window: forget it */ }
  },
};

const short = (name) => (name.length > 40 ? `${name.slice(0, 40)}…` : name);
const noRoom = (name) => `“${short(name)}” is no room name: up to 128 letters, digits and _ . : @ / - make one.`;
const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;

// Signing in

function showSignIn(problem) {
  root.dataset.view = "sign-in";
  byId("chat").hidden = true;
  byId("sign-in").hidden = false;
  byId("sign-in-error").hidden = !problem;
  byId("sign-in-error").textContent = problem ?? "";
  byId("user").value ||= query.get("user") ?? remembered.get("user");
  byId("room").value ||= query.get("room") ?? (remembered.get("room") || "general");
  document.title = "Martlet";
  const next = byId("token-field").hidden ? document.querySelector("#sign-in-form .primary") : byId("token");
  (byId("user").value ? next : byId("user")).focus();
}

byId("sign-in-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = byId("user").value.trim();
  if (!name || utf8.encode(name).length > 128) return showSignIn("A name has 1 to 128 bytes.");
  const room = byId("room").value;
  if (!isRoomName(room)) return showSignIn(noRoom(room));
  signIn(name, room, byId("token").value || undefined);
});

function signIn(name, room, token) {
  user = name;
  remembered.set("user", name);
  remembered.set("room", room);
  secret = token;
  root.dataset.view = "chat";
  byId("sign-in").hidden = true;
  byId("chat").hidden = false;
  byId("my-status").value = "online";
  showMe();
  rooms = new Map();
  current = undefined;
  chat = new Martlet({ user: name, token });
  listen(chat);
  const others = remembered.get(`rooms.${name}`).split(" ").filter(isRoomName);
  for (const other of new Set([...others, room])) addRoom(other);
  show(room);
  chat.connect();
  input.focus();
}

function showMe() {
  byId("my-name").textContent = user;
  paintAvatar(byId("my-avatar"), user, byId("my-status").value);
}

/** The server knows who this is; with a token it is not who was typed. */
function adoptName() {
  if (chat.user === user) return;
  user = chat.user;
  remembered.set("user", user);
  saveRooms();
  saveSession();
  showMe();
}

function signOut(problem) {
  chat?.close();
  chat = undefined;
  try { sessionStorage.removeItem("martlet.in"); } catch { /* nothing to forget */ }
  showSignIn(problem);
}

byId("sign-out").addEventListener("click", () => signOut());
byId("my-status").addEventListener("change", ({ target }) => {
  chat.status(target.value);
  showMe();
});

// What the connection tells

const connection = new ConnectionView({ retry: () => (chat.state === "closed" ? chat.connect() : chat.retryNow()) });

function listen(source) {
  const on = (type, handler) => source.addEventListener(type, ({ detail }) => source === chat && handler(detail));
  on("state", (detail) => {
    if (detail.state === "closed" && detail.code === 4201) {
      byId("token-field").hidden = false;
      return signOut(secret ? sentence(detail.reason) : "This server asks for a token.");
    }
    if (detail.state === "online") adoptName();
    connection.update(detail, source);
    for (const room of rooms.values()) room.timeline.sayPending(pendingText());
  });
  on("joined", ({ room: name, recovered, first }) => {
    const room = rooms.get(name);
    if (!room) return;
    room.entered = true;
    if (first) room.read = false;
    if (room === current && !room.read) readLatest(room); // the others when they are shown: a person may be in 100
    if (room === current) connection.joined(recovered, source);
    room.timeline.sayPending("Sending…");
  });
  on("message", (message) => receive(rooms.get(message.room), message));
  on("sent", (fate) => rooms.get(fate.room)?.timeline.settle(fate));
  on("gap", (gap) => {
    const room = rooms.get(gap.room);
    if (!room) return;
    room.timeline.putGap(gap);
    connection.gap();
    if (gap.turned) {
      room.read = false;
      if (room === current) readLatest(room);
    }
    keepScroll(room);
  });
  on("page", ({ room: name, messages }) => {
    const room = rooms.get(name);
    if (!room) return;
    putPage(room, messages);
    keepScroll(room);
  });
  on("presence", ({ room: name, members, count }) => {
    const room = rooms.get(name);
    if (!room) return;
    Object.assign(room, { members, count });
    if (room === current) showPeople(current, user);
  });
  on("typing", ({ room: name, users }) => {
    const room = rooms.get(name);
    if (!room) return;
    room.typing = users;
    if (room === current) showTyping(current);
  });
  on("left", ({ room: name, reason }) => {
    if (rooms.has(name)) removeRoom(name, sentence(`You were taken out of #${short(name)}${reason ? `: ${reason}` : ""}`));
  });
  on("error", ({ message, reason, refused = [] }) => {
    const why = message ?? reason;
    const gone = refused.filter((name) => rooms.has(name));
    if (!gone.length) return notice(why);
    for (const name of gone) removeRoom(name, sentence(`#${short(name)} cannot be joined: ${why}`));
  });
}

const pendingText = () => (chat?.state === "online" ? "Sending…" : "Goes out when the connection is back");

function receive(room, message) {
  if (!room) return;
  const line = room.timeline.put(message, { arrived: true });
  if (line && !message.own && !isRead(room)) {
    if (!room.unread) room.timeline.markNew(line);
    room.unread += 1;
    showUnread();
  }
  if (isAtNewest(room) && room.timeline.prune()) room.more = true;
  keepScroll(room);
}

function putPage(room, messages) {
  for (const message of messages) room.timeline.put({ ...message, room: room.name, own: message.from === user });
}

/** The newest page, or what is older than the oldest line. */
async function readLatest(room, before) {
  if (room.reading) return;
  room.reading = true;
  showBeginning(room);
  try {
    const { messages, more } = await chat.history(room.name, { before, limit: 50 });
    const height = log.scrollHeight;
    putPage(room, messages);
    Object.assign(room, { more, read: true });
    room.reading = false;
    showBeginning(room);
    if (before !== undefined && room === current) log.scrollTop += log.scrollHeight - height;
    else keepScroll(room);
  } catch {
    room.reading = false; // the next join or scroll asks again
  }
}

// Rooms

function addRoom(name) {
  if (rooms.has(name)) return;
  const timeline = new Timeline({
    retry: ({ text }) => send(rooms.get(name), text),
    discard: () => input.focus(),
  });
  rooms.set(name, {
    name, timeline, unread: 0, members: [], count: 0, typing: [], draft: "", more: false, read: false, reading: false,
    scroll: null,
  });
  chat.join(name);
  saveRooms();
  showRooms();
}

/** `why` is said when it was not the user's own wish. */
function removeRoom(name, why) {
  rooms.delete(name);
  chat.leave(name);
  saveRooms();
  const [next] = rooms.keys();
  if (!next) return signOut(why);
  if (current?.name === name) show(next);
  else showRooms();
  if (why) notice(why);
}

function saveSession() {
  history.replaceState(null, "", `?${new URLSearchParams({ user, room: current.name })}`);
  const session = JSON.stringify({ name: user, room: current.name, token: secret });
  try { sessionStorage.setItem("martlet.in", session); } catch { /* asks again after a reload */ }
}

const saveRooms = () => remembered.set(`rooms.${user}`, [...rooms.keys()].join(" "));

function show(name) {
  if (current) Object.assign(current, { draft: input.value, scroll: stuck ? null : log.scrollTop });
  if (current && !current.unread) current.timeline.markNew(null);
  current = rooms.get(name);
  byId("room-name").textContent = name;
  log.setAttribute("aria-label", `Messages in ${name}`);
  log.setAttribute("aria-live", "off"); // a change of room is not news
  log.querySelector("ol").replaceWith(current.timeline.list);
  requestAnimationFrame(() => log.setAttribute("aria-live", "polite"));
  input.placeholder = `Message #${short(name)}`;
  input.value = current.draft;
  fitInput();
  remembered.set("room", name);
  saveSession();
  showBeginning(current);
  if (!current.read && current.entered) readLatest(current);
  showPeople(current, user);
  showTyping(current);
  stuck = current.scroll === null;
  log.scrollTop = stuck ? log.scrollHeight : current.scroll;
  markRead();
  closeDrawers();
}

function showRooms() {
  byId("room-list").replaceChildren(
    ...[...rooms.values()].map((room) => {
      const open = element("button", { type: "button" }, element("span", { className: "name", textContent: room.name }));
      if (room.unread) {
        const label = element("span", { className: "sr", textContent: "unread" });
        open.append(element("span", { className: "badge" }, room.unread > 99 ? "99+" : `${room.unread}`, label));
      }
      open.onclick = () => {
        show(room.name);
        input.focus();
      };
      if (room === current) open.setAttribute("aria-current", "page");
      const item = element("li", { className: "room-item" }, open);
      if (rooms.size > 1) {
        const leave = element("button", { type: "button", className: "leave", "aria-label": `Leave ${room.name}` });
        leave.append(icon("M5 5l10 10M15 5L5 15"));
        leave.onclick = () => removeRoom(room.name);
        item.append(leave);
      }
      if (room === current) item.dataset.current = "";
      if (room.unread) item.dataset.unread = room.unread;
      return item;
    }),
  );
}

byId("add-room").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = byId("new-room").value;
  if (!isRoomName(name)) return notice(noRoom(name));
  byId("new-room").value = "";
  addRoom(name);
  show(name);
  input.focus();
});

function showBeginning(room) {
  if (room !== current) return;
  const place = byId("beginning");
  if (room.more || !room.read) {
    const words = room.reading ? "Reading older messages…" : "";
    place.replaceChildren(...(words ? [element("p", { className: "loading", textContent: words })] : []));
    return;
  }
  const second = new URLSearchParams({ room: room.name, user: user === "bob" ? "alice" : "bob" });
  const hello = element("p", {}, "Say hello. To see both sides of it, ");
  hello.append(element("a", { href: `/?${second}`, target: "_blank", textContent: "open a second window" }), " as someone else.");
  place.replaceChildren(
    element("div", { className: "glyph", "aria-hidden": "true", textContent: "#" }),
    element("h2", { textContent: `This is the beginning of #${room.name}` }),
    ...(room.timeline.length ? [] : [hello]),
  );
}

// Reading

const isAtNewest = (room) => (room === current ? stuck : room.scroll === null);
const isRead = (room) => room === current && stuck && !document.hidden;

function markRead() {
  if (current && isRead(current)) current.unread = 0;
  showUnread();
}

function showUnread() {
  const total = [...rooms.values()].reduce((sum, room) => sum + room.unread, 0);
  document.title = `${total ? `(${total}) ` : ""}#${current.name} · Martlet`;
  byId("other-unread").hidden = total === current.unread;
  const latest = byId("latest");
  latest.hidden = stuck;
  latest.toggleAttribute("data-unread", current.unread > 0);
  byId("latest-text").textContent =
    current.unread ? `${current.unread} new ${current.unread === 1 ? "message" : "messages"}` : "Jump to the newest";
  showRooms();
}

function toNewest() {
  stuck = true;
  log.scrollTop = log.scrollHeight;
  markRead();
}

function keepScroll(room) {
  if (room === current && stuck) log.scrollTop = log.scrollHeight;
  if (room === current) showBeginning(room);
}

log.addEventListener("scroll", () => {
  const below = log.scrollHeight - log.scrollTop - log.clientHeight;
  const was = stuck;
  stuck = below < 40;
  if (was !== stuck) markRead();
  if (log.scrollTop < 200 && current?.more && current.timeline.oldestSeq) readLatest(current, current.timeline.oldestSeq);
}, { passive: true });

new ResizeObserver(() => current && stuck && (log.scrollTop = log.scrollHeight)).observe(log);
document.addEventListener("visibilitychange", () => current && chat && markRead());
byId("latest").addEventListener("click", () => {
  toNewest();
  input.focus();
});

// Writing

function send(room, text) {
  const { id } = chat.send(room.name, text);
  room.timeline.putPending({ id, from: user, own: true, text, ts: Date.now() });
  room.timeline.sayPending(pendingText());
  if (room === current) toNewest();
}

function fitInput() {
  input.style.height = "auto";
  input.style.height = `${Math.min(input.scrollHeight, 180)}px`;
  const room = (chat?.limits.message_bytes ?? 65536) - 256;
  const over = utf8.encode(JSON.stringify(input.value)).length - room;
  notice(over > 0 ? `This is ${over} bytes too long for one message.` : "");
  byId("send").disabled = !input.value.trim() || over > 0;
}

let noticeTimer;
function notice(text) {
  clearTimeout(noticeTimer);
  byId("notice").textContent = text;
  if (text) noticeTimer = setTimeout(() => (byId("notice").textContent = ""), 8000);
}

input.addEventListener("input", () => {
  fitInput();
  chat.typing(current.name, input.value.trim() !== "");
});
input.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  byId("composer").requestSubmit();
});
byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = input.value.trimEnd();
  if (byId("send").disabled || !text.trim()) return;
  input.value = "";
  fitInput();
  send(current, text);
  input.focus();
});

// The keyboard

document.addEventListener("keydown", (event) => {
  if (!current || byId("chat").hidden) return;
  if (event.key === "Escape") {
    if (!closeDrawers()) toNewest();
    return input.focus();
  }
  if (!event.altKey || !["ArrowUp", "ArrowDown"].includes(event.key)) return;
  event.preventDefault();
  const names = [...rooms.keys()];
  const step = event.key === "ArrowUp" ? -1 : 1;
  show(names[(names.indexOf(current.name) + step + names.length) % names.length]);
});

// A reload goes on where it was; a link with a name and a room fills in the form.

let last;
try { last = JSON.parse(sessionStorage.getItem("martlet.in")); } catch { /* ask */ }
const asked = query.get("room");
const problem = asked && !isRoomName(asked) ? noRoom(asked) : undefined;
if (last && (!query.has("user") || query.get("user") === last.name)) {
  signIn(last.name, [asked, last.room, "general"].find((name) => name && isRoomName(name)), last.token);
  if (problem) notice(problem);
} else {
  showSignIn(problem);
}
