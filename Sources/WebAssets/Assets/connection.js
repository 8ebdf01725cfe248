import { byId } from "/view.js";

const root = document.documentElement;

/** Says how the connection is: the pill with the serving node, and a banner while something is wrong. */
export class ConnectionView {
  #countdown; // the timer of what the state shows: seconds to wait, or the round trip
  #hide;
  #wasOnline = false;
  #lost = false;
  #gapSaid = false;

  constructor({ retry }) {
    byId("retry").addEventListener("click", retry);
  }

  update({ state, retryAt, code, reason }, chat) {
    root.dataset.connection = state;
    clearInterval(this.#countdown);
    byId("countdown").textContent = "";
    switch (state) {
      case "online":
        byId("node").textContent = chat.node;
        this.#wasOnline = true;
        this.#countdown = setInterval(() => this.#showRoundTrip(chat), 1000);
        return;
      case "connecting":
        if (this.#lost) this.#banner("lost", "Reconnecting…", false);
        else byId("node").textContent = "connecting…";
        return;
      case "waiting":
        this.#lost = true;
        byId("node").textContent = "offline";
        byId("round-trip").textContent = "";
        this.#banner("lost", this.#wasOnline ? "Connection lost. What you send is kept." : "The chat cannot be reached.", true);
        this.#count(retryAt);
        this.#countdown = setInterval(() => this.#count(retryAt), 250);
        return;
      case "closed":
        byId("node").textContent = "offline";
        byId("round-trip").textContent = "";
        if (code === 1000) byId("banner").hidden = true;
        else this.#banner("closed", `Disconnected${reason ? `: ${reason}` : ""}.`, true, "Connect again");
        this.#lost = code !== 1000;
        this.#wasOnline = false;
    }
  }

  /** The room in view is joined again. */
  joined(recovered, chat) {
    if (!this.#lost) return (byId("banner").hidden = true);
    this.#lost = false;
    const kept = recovered && !this.#gapSaid ? " Nothing was missed." : "";
    this.#gapSaid = false;
    this.#banner("back", `Connected again, through ${chat.node}.${kept}`, false);
    this.#hide = setTimeout(() => (byId("banner").hidden = true), 4000);
  }

  gap() {
    this.#gapSaid = true;
  }

  #showRoundTrip(chat) {
    if (chat.state === "online" && chat.rtt !== undefined) byId("round-trip").textContent = `${chat.rtt} ms`;
  }

  #count(retryAt) {
    const left = Math.ceil((retryAt - Date.now()) / 1000);
    byId("countdown").textContent = left > 0 ? `Trying again in ${left} s.` : "";
  }

  #banner(kind, text, canRetry, label = "Retry now") {
    clearTimeout(this.#hide);
    const banner = byId("banner");
    banner.hidden = false;
    banner.dataset.kind = kind;
    byId("banner-text").textContent = text;
    byId("retry").textContent = label;
    byId("retry").hidden = !canRetry;
  }
}
