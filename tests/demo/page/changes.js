// Counts in 60 frames how often texts inside an element are set to another text, and how often to the same.
async (selector) => {
  let [changed, unchanged] = [0, 0];
  const observer = new MutationObserver((records) => {
    for (const { addedNodes, removedNodes } of records) {
      if (addedNodes[0]?.nodeType !== Node.TEXT_NODE || removedNodes.length === 0) continue;
      if (addedNodes[0].data === removedNodes[0].data) unchanged += 1;
      else changed += 1;
    }
  });
  observer.observe(document.querySelector(selector), { childList: true, subtree: true });
  for (let frame = 0; frame < 60; frame++) await new Promise(requestAnimationFrame);
  observer.disconnect();
  return [changed, unchanged];
}
