"""What every page looks like, and what it does when it is touched."""

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 66rem; margin: 0 auto; padding: 1rem; overflow-wrap: break-word; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #8886; }
th:first-child, td:first-child { text-align: left; } tbody th { font-weight: inherit; min-width: 7rem; }
th button { all: unset; cursor: pointer; white-space: nowrap; }
th button:focus-visible { outline: 2px solid; outline-offset: 3px; }
th button::after { content: "↕" / ""; display: inline-block; width: 1.4em; text-align: center; opacity: .4; }
[aria-sort] button::after { opacity: 1; } [aria-sort=ascending] button::after { content: "▴" / ""; }
[aria-sort=descending] button::after { content: "▾" / ""; }
figure { margin: 0 0 1rem; } figcaption { font-size: .9rem; }
img { max-width: 100%; height: auto; image-rendering: auto; } svg { width: 100%; height: auto; }
svg text { font-size: 11px; fill: currentColor; } .row { display: flex; flex-wrap: wrap; gap: 1rem; }
input[type=range] { width: 100%; margin: .4rem 0; }
.compare > figcaption { font-weight: 600; margin-bottom: .3rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); gap: 0 1rem; }
.box { position: relative; overflow: hidden; cursor: ew-resize; user-select: none; touch-action: pan-y; }
.box img { display: block; width: 100%; }
.box img + img { position: absolute; inset: 0; height: 100%; clip-path: inset(0 0 0 var(--edge)); }
.box::before, .box::after { position: absolute; left: var(--edge, -9rem); z-index: 1; translate: -50%; }
.box::before { content: ""; top: 0; bottom: 0; width: 2px; background: #fff; box-shadow: 0 0 3px #0009; }
.box::after { content: "‹ ›" / ""; top: 50%; margin-top: -1rem; width: 2rem; height: 2rem; border-radius: 50%;
  background: #fff; color: #222; box-shadow: 0 0 4px #0009; font: 700 1.1rem/1.7rem sans-serif; text-align: center; }
"""

SCRIPT = """
for (const flip of document.querySelectorAll('.flip')) {
  const slider = flip.querySelector('input'), shown = flip.querySelectorAll('figure');
  const show = () => shown.forEach((figure, n) => { figure.hidden = n != slider.value; });
  slider.addEventListener('input', show); show();
}

const NUMBER = /^[-+−]?[\\d,]*\\.?\\d+(e[-+]?\\d+)?(?=[\\s%]|$)/i, MISSING = /^(nan|[-–—]|)$/i;
const keyOf = text => {
  const number = text.match(NUMBER);
  return MISSING.test(text) ? null : number ? Number(number[0].replaceAll(',', '').replace('−', '-')) : text;
};
const compare = (a, b) => {  // numbers before words
  if (typeof a != typeof b) return typeof a == 'number' ? -1 : 1;
  return typeof a == 'number' ? a - b : a.localeCompare(b, 'en', { numeric: true });
};
const sortBy = head => {
  const up = head.getAttribute('aria-sort') != 'ascending', body = head.closest('table').tBodies[0];
  for (const other of head.parentElement.cells) other.removeAttribute('aria-sort');
  head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
  const keyed = [...body.rows].map(row => [keyOf(row.cells[head.cellIndex].textContent.trim()), row]);
  keyed.sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null) : compare(a, b) * (up ? 1 : -1));
  body.append(...keyed.map(([, row]) => row));
};
for (const button of document.querySelectorAll('th button'))
  button.addEventListener('click', () => sortBy(button.parentElement));

const attachEdge = (box, slider) => {
  const show = () => box.style.setProperty('--edge', slider.value + '%');
  const moveTo = event => {
    const { left, width } = box.getBoundingClientRect();
    slider.value = (event.clientX - left) / width * 100; show();
  };
  let start, held = false;
  box.addEventListener('dragstart', event => event.preventDefault());  // the image stays, the edge goes
  box.addEventListener('pointerdown', event => {
    start = event; held = false;
    if (event.button == 0) box.setPointerCapture(event.pointerId);
  });
  box.addEventListener('pointermove', event => {
    if (!box.hasPointerCapture(event.pointerId)) return;
    // a finger that goes up or down scrolls the page, and leaves the edge where it is
    held ||= Math.abs(event.clientX - start.clientX) > Math.abs(event.clientY - start.clientY);
    if (held) moveTo(event);
  });
  box.addEventListener('click', moveTo);
  slider.addEventListener('input', show); show();
};
for (const group of document.querySelectorAll('.compare')) {
  const photo = group.querySelector('img');  // in the file once; without a script it stands before the results
  for (const box of group.querySelectorAll('.box')) {
    box.prepend(photo.cloneNode()); attachEdge(box, box.nextElementSibling);
  }
  photo.remove();
}
"""
