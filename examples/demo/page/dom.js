// Building the page's elements.

export function child(parent, tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  parent.append(element);
  return element;
}

// The first digits of a public key: enough to tell keys apart.
export const shortened = (publicKey) => `${publicKey.slice(0, 8)}…`;

// Makes a change to a scrolling element and stays at its end, unless the reader has scrolled back.
export function followEnd(scroller, change) {
  const atEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 48;
  change();
  if (atEnd) scroller.scrollTop = scroller.scrollHeight;
}
