// Building the page's elements.

export function child(parent, tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  parent.append(element);
  return element;
}

// What people tell public keys by.
export const shortened = (publicKey) => `${publicKey.slice(0, 8)}…`;

// Scrolls to the end unless the reader has scrolled back.
export function followEnd(scroller, change) {
  const atEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 48;
  change();
  if (atEnd) scroller.scrollTop = scroller.scrollHeight;
}
