// Wide tables and code can be scrolled by the keyboard. The theme takes this from code that it has not yet seen on the screen.
window.addEventListener("load", () => {
  const reachable = (element) => {
    if (element.tabIndex !== 0) element.tabIndex = 0;
  };
  for (const element of document.querySelectorAll(".md-typeset__scrollwrap, .md-typeset pre > code")) {
    reachable(element);
    new MutationObserver(() => reachable(element)).observe(element, { attributes: true, attributeFilter: ["tabindex"] });
  }
});
