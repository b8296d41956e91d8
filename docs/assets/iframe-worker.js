// Browsers start no workers for pages that are opened as files. The search of the site wants one: there, a hidden frame
// stands in for it, in which the worker's script runs and passes messages as it would.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.appendChild(frame);
      this.inside = frame.contentWindow;
      const page = frame.contentDocument;
      page.open();
      page.write("<!doctype html><body></body>");
      page.close();
      this.inside.postMessage = (data) => this.pass(this, data);
      this.waiting = [];
      const script = page.createElement("script");
      script.src = new URL(url, location.href);
      script.onload = () => {
        const held = this.waiting;
        this.waiting = null;
        held.forEach((data) => this.pass(this.inside, data));
      };
      page.body.appendChild(script);
    }

    postMessage(data) {
      if (this.waiting) this.waiting.push(data);
      else this.pass(this.inside, data);
    }

    pass(to, data) {
      setTimeout(() => to.dispatchEvent(new MessageEvent("message", { data })));
    }
  };
  window.Worker = window.IFrameWorker;
}
