// Building the page: elements from data, never from text that could be taken for markup.

export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "class") element.className = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children.flat(9)) {
    if (child === undefined || child === null || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

export const byId = (id) => document.getElementById(id);

// Shows `items` below `parent`, one element each, in order; an element is replaced only if its data
// changed, so that what a person points at, has opened or has selected stays.
export function list(parent, items, key, render) {
  const known = new Map([...parent.children].map((element) => [element.dataset.key, element]));
  let at = parent.firstElementChild;
  for (const item of items) {
    const id = key(item);
    const print = JSON.stringify(item);
    let element = known.get(id);
    known.delete(id);
    if (!element || element.print !== print) {
      const fresh = render(item);
      fresh.dataset.key = id;
      fresh.print = print;
      if (element) {
        keepOpen(element, fresh);
        if (at === element) at = fresh;
        element.replaceWith(fresh);
      }
      element = fresh;
    }
    if (element !== at) parent.insertBefore(element, at);
    at = element.nextElementSibling;
  }
  known.forEach((element) => element.remove());
}

function keepOpen(before, after) {
  const opened = new Set([...details(before)].filter((one) => one.open).map((one) => one.dataset.name));
  const shut = new Set([...details(before)].filter((one) => !one.open).map((one) => one.dataset.name));
  for (const one of details(after)) {
    if (opened.has(one.dataset.name)) one.open = true;
    if (shut.has(one.dataset.name)) one.open = false;
  }
  const focused = before.contains(document.activeElement) && document.activeElement.dataset.focus;
  if (focused) queueMicrotask(() => after.querySelector(`[data-focus="${focused}"]`)?.focus());
}

function* details(element) {
  if (element.tagName === "DETAILS") yield element;
  yield* element.querySelectorAll("details");
}

export function duration(ms) {
  if (ms === null || ms === undefined) return "";
  return ms < 10000 ? `${ms} ms` : `${(ms / 1000).toFixed(1)} s`;
}

export function clock(text) {
  return text ? new Date(text).toLocaleTimeString() : "";
}
