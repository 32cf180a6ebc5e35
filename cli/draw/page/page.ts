/** The page of `cni draw --html`, in the browser: pan, zoom, search, and what a box is joined to. */

const view = document.querySelector<HTMLElement>('#view')!;
const svg = view.querySelector('svg')!;
const search = document.querySelector<HTMLInputElement>('#search')!;
const found = document.querySelector<HTMLOutputElement>('#found')!;
const about = document.querySelector<HTMLElement>('#about')!;
const nodes = [...svg.querySelectorAll<SVGGElement>('.node[data-id]')];
const edges = [...svg.querySelectorAll<SVGGElement>('.edge[data-from]')];
const whole = svg.viewBox.baseVal;
const { width: fullWidth, height: fullHeight } = whole;

/** The part of the picture that is shown, in the picture's own pixels. */
let shown = { x: 0, y: 0, width: fullWidth, height: fullHeight };

function show(next: typeof shown): void {
  shown = next;
  svg.setAttribute('viewBox', `${next.x} ${next.y} ${next.width} ${next.height}`);
}

/** Where a point of the window is in the picture. */
function inPicture(clientX: number, clientY: number): { x: number; y: number } {
  const { x, y } = new DOMPoint(clientX, clientY).matrixTransform(svg.getScreenCTM()!.inverse());
  return { x, y };
}

/** Zooms about a point of the picture. @param factor above 1 shows less, and larger. */
function zoom(factor: number, { x, y }: { x: number; y: number }): void {
  const width = Math.min(fullWidth * 4, Math.max(fullWidth / 100, shown.width / factor));
  const scale = width / shown.width;
  show({
    x: x - (x - shown.x) * scale,
    y: y - (y - shown.y) * scale,
    width,
    height: shown.height * scale,
  });
}

function zoomAtCentre(factor: number): void {
  zoom(factor, { x: shown.x + shown.width / 2, y: shown.y + shown.height / 2 });
}

function showWhole(): void {
  show({ x: 0, y: 0, width: fullWidth, height: fullHeight });
}

svg.removeAttribute('width');
svg.removeAttribute('height');

view.addEventListener(
  'wheel',
  (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 400), inPicture(event.clientX, event.clientY));
  },
  { passive: false },
);

/** Where each finger, or the mouse, holds the picture. */
const held = new Map<number, { clientX: number; clientY: number }>();

view.addEventListener('pointerdown', (event) => {
  held.set(event.pointerId, event);
  view.setPointerCapture(event.pointerId);
});
view.addEventListener('pointermove', (event) => {
  const before = held.get(event.pointerId);
  if (!before) return;
  const other = [...held].find(([id]) => id !== event.pointerId)?.[1];
  if (other) {
    const distance = (one: { clientX: number; clientY: number }) =>
      Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY) || 1;
    zoom(distance(event) / distance(before), inPicture(other.clientX, other.clientY));
  } else {
    const [from, to] = [inPicture(before.clientX, before.clientY), inPicture(event.clientX, event.clientY)];
    show({ ...shown, x: shown.x + from.x - to.x, y: shown.y + from.y - to.y });
  }
  held.set(event.pointerId, event);
});
for (const type of ['pointerup', 'pointercancel'] as const)
  view.addEventListener(type, (event) => held.delete(event.pointerId));

const steps: Record<string, () => void> = {
  '+': () => zoomAtCentre(1.3),
  '=': () => zoomAtCentre(1.3),
  '-': () => zoomAtCentre(1 / 1.3),
  '0': showWhole,
  ArrowLeft: () => show({ ...shown, x: shown.x - shown.width / 10 }),
  ArrowRight: () => show({ ...shown, x: shown.x + shown.width / 10 }),
  ArrowUp: () => show({ ...shown, y: shown.y - shown.height / 10 }),
  ArrowDown: () => show({ ...shown, y: shown.y + shown.height / 10 }),
  '/': () => search.focus(),
};
document.addEventListener('keydown', (event) => {
  if (event.target === search || event.ctrlKey || event.metaKey || event.altKey) return;
  const step = steps[event.key];
  if (!step) return;
  event.preventDefault();
  step();
});
document.querySelector('#in')!.addEventListener('click', () => zoomAtCentre(1.3));
document.querySelector('#out')!.addEventListener('click', () => zoomAtCentre(1 / 1.3));
document.querySelector('#fit')!.addEventListener('click', showWhole);

function textsOf(element: Element): SVGTextElement[] {
  return [...element.querySelectorAll<SVGTextElement>('text')];
}

/** Whether a text is in a row of a list. */
function isCell(text: SVGTextElement): boolean {
  return text.classList.contains('cell');
}

function textOf(element: Element): string {
  return textsOf(element)
    .map(({ textContent }) => textContent)
    .join('\n');
}

/** Marks what contains the text searched for, and fades the rest. */
function markMatches(): void {
  const wanted = search.value.trim().toLowerCase();
  let number = 0;
  for (const node of nodes) {
    const matching = textsOf(node).filter((text) => text.textContent.toLowerCase().includes(wanted));
    const hasMatch = wanted !== '' && matching.length > 0;
    for (const text of textsOf(node)) text.classList.toggle('match', hasMatch && matching.includes(text));
    node.classList.toggle('match', hasMatch);
    node.classList.toggle('faint', wanted !== '' && !hasMatch);
    if (hasMatch) number += matching.filter(isCell).length || 1;
  }
  for (const edge of edges)
    edge.classList.toggle('faint', wanted !== '' && !textOf(edge).toLowerCase().includes(wanted));
  found.textContent = wanted === '' ? '' : number === 0 ? 'Nothing found' : `${number} found`;
}
search.addEventListener('input', markMatches);

/** Shows what a box says and what it is joined to; without a box, shows everything again. */
function explain(node: SVGGElement | undefined): void {
  if (search.value.trim() !== '') return;
  const id = node?.dataset.id;
  const joined = edges.filter(({ dataset }) => dataset.from === id || dataset.to === id);
  const near = new Set([id, ...joined.flatMap(({ dataset }) => [dataset.from, dataset.to])]);
  for (const one of nodes) one.classList.toggle('faint', node !== undefined && !near.has(one.dataset.id));
  for (const edge of edges) edge.classList.toggle('faint', node !== undefined && !joined.includes(edge));
  about.hidden = node === undefined;
  if (node) {
    // The rows of a list can be long, and are read in the picture itself.
    const head = textsOf(node).filter((text) => !isCell(text));
    const parts = [head.map(({ textContent }) => textContent).join('\n'), ...joined.map(textOf)];
    about.textContent = parts.filter((text) => text !== '').join('\n\n');
  }
}
for (const node of nodes) {
  node.addEventListener('pointerenter', () => explain(node));
  node.addEventListener('pointerleave', () => explain(undefined));
}
