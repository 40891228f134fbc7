// The page works without this. In Airflow's frame it takes over Airflow's theme, and opens links to Airflow's own pages
// in the whole window, which the frame's sandbox does not let a link do.
(() => {
  const root = document.documentElement;
  // This page's colours, and where Airflow's own are.
  const colours = {
    "--page": "bg",
    "--panel": "bg",
    "--soft": "bg-muted",
    "--hover": "bg-muted",
    "--line": "border",
    "--text": "fg",
    "--quiet": "fg-muted",
  };
  let outer = null;
  try {
    if (window.parent !== window) outer = window.parent.document.documentElement;
  } catch {
    return; // in a frame of another site
  }
  const follow = () => {
    if (outer === null) {
      const theme = window.localStorage.getItem("theme");
      if (theme === "dark" || theme === "light") root.dataset.theme = theme;
      return;
    }
    root.dataset.theme = outer.classList.contains("dark") ? "dark" : "light";
    const theirs = window.parent.getComputedStyle(outer);
    for (const [mine, name] of Object.entries(colours)) {
      root.style.setProperty(mine, theirs.getPropertyValue(`--chakra-colors-${name}`));
    }
  };
  try {
    follow();
  } catch {
    // no storage: as the system says
  }
  if (outer === null) return;
  new MutationObserver(follow).observe(outer, { attributes: true, attributeFilter: ["class"] });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-airflow]");
    if (link === null || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    window.parent.history.pushState({}, "", link.href);
    window.parent.dispatchEvent(new PopStateEvent("popstate", { state: {} }));
  });
})();
