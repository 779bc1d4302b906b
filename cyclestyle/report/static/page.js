// Flip-through: a slider selects which image of a stack is visible. The address of the page keeps the selection, so
// that it survives a reload; if the last image is selected, a reload selects what is then the last one.
for (const flip of document.querySelectorAll('.flip')) {
  const slider = flip.querySelector('input');
  const figures = [...flip.querySelectorAll('figure')];
  const address = index => '#' + encodeURIComponent(figures[index].textContent.trim());
  const update = () => figures.forEach((figure, index) => { figure.hidden = index != slider.value; });
  const kept = figures.findIndex((_, index) => address(index) == location.hash);
  if (kept >= 0) slider.value = kept;
  slider.hidden = false;
  slider.addEventListener('input', () => {
    update();
    history.replaceState(null, '', slider.value == slider.max ? '#' : address(slider.value));
  });
  update();
}

// A page that changes loads itself again.
const { reloadSeconds } = document.documentElement.dataset;
if (reloadSeconds) setTimeout(() => location.reload(), 1000 * reloadSeconds);

// Times: how long ago they were.
const UNITS = [['day', 86400], ['hour', 3600], ['minute', 60], ['second', 1]];
for (const time of document.querySelectorAll('time')) {
  const text = time.textContent;
  const update = () => {
    const seconds = Math.max(0, Math.round((Date.now() - new Date(time.dateTime)) / 1000));
    const [unit, length] = UNITS.find(([, length]) => seconds >= length) || UNITS.at(-1);
    const number = Math.floor(seconds / length);
    time.textContent = `${text}, ${number} ${unit}${number == 1 ? '' : 's'} ago`;
  };
  setInterval(update, 1000);
  update();
}

// Sortable tables: a click on a header button sorts the rows by that column.
const NUMBER = /^[-+−]?[\d,]*\.?\d+(e[-+]?\d+)?(?=[\s%]|$)/i;
const MISSING = /^(nan|n\/a|[-–—]|)$/i;

// The sort key of a cell: null for a missing value, the leading number if there is one, else the text.
const sortKey = text => {
  if (MISSING.test(text)) return null;
  const number = text.match(NUMBER);
  return number ? Number(number[0].replaceAll(',', '').replace('−', '-')) : text;
};

const compareKeys = (a, b) => {  // numbers before text
  if (typeof a != typeof b) return typeof a == 'number' ? -1 : 1;
  return typeof a == 'number' ? a - b : a.localeCompare(b, 'en', { numeric: true });
};

const sortRows = header => {
  const ascending = header.getAttribute('aria-sort') != 'ascending';
  const body = header.closest('table').tBodies[0];
  for (const other of header.parentElement.cells) other.removeAttribute('aria-sort');
  header.setAttribute('aria-sort', ascending ? 'ascending' : 'descending');
  const keyed = [...body.rows].map(row => [sortKey(row.cells[header.cellIndex].textContent.trim()), row]);
  keyed.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);  // missing values last in both orders
    return compareKeys(a, b) * (ascending ? 1 : -1);
  });
  body.append(...keyed.map(([, row]) => row));
};

for (const button of document.querySelectorAll('th button'))
  button.addEventListener('click', () => sortRows(button.parentElement));

// Before and after: an edge that follows the slider, the mouse and touches. The photo is visible left of it.
const attachEdge = (box, slider) => {
  const update = () => box.style.setProperty('--edge', slider.value + '%');
  const moveTo = event => {
    const { left, width } = box.getBoundingClientRect();
    slider.value = (event.clientX - left) / width * 100;
    update();
  };
  let start, dragging = false;
  box.addEventListener('dragstart', event => event.preventDefault());  // drag the edge, not the image
  box.addEventListener('pointerdown', event => {
    start = event;
    dragging = false;
    if (event.button == 0) box.setPointerCapture(event.pointerId);
  });
  box.addEventListener('pointermove', event => {
    if (!box.hasPointerCapture(event.pointerId)) return;
    // A vertical touch scrolls the page and does not move the edge.
    dragging ||= Math.abs(event.clientX - start.clientX) > Math.abs(event.clientY - start.clientY);
    if (dragging) moveTo(event);
  });
  box.addEventListener('click', moveTo);
  slider.addEventListener('input', update);
  update();
};

for (const group of document.querySelectorAll('.compare')) {
  // The file holds the photo once; it is copied into each box. Without JavaScript it is shown before the results.
  const photo = group.querySelector('img');
  for (const box of group.querySelectorAll('.box')) {
    box.prepend(photo.cloneNode());
    attachEdge(box, box.nextElementSibling);
  }
  photo.remove();
}
