/**
 * Lines over time with axes, as SVG. What the lines say stands beside them as text too: the newest value of each line in
 * the legend, and the lowest, highest and newest in the name that screen readers give the picture.
 */
import { element } from './element.js';

export interface Line {
  readonly name: string;
  /** The oldest first; null where nothing was measured. */
  readonly values: readonly (number | null)[];
}

export interface ChartOptions {
  readonly title: string;
  readonly write: (value: number | null) => string;
  /** The value at the top of the axis; without it, as the lines need it. */
  readonly top?: number;
  /** Sizes: the axis ends at a power of two. */
  readonly sizes?: boolean;
}

export interface Span {
  readonly everyMs: number;
  /** How many values there are once the process has run for long enough. */
  readonly kept: number;
}

export interface Chart {
  draw(lines: readonly Line[], span: Span): void;
}

const HEIGHT = 168;
const LEFT = 62;
const RIGHT = 10;
const ABOVE = 8;
const BELOW = 24;
const SVG = 'http://www.w3.org/2000/svg';

/** Fills an empty element of the page. */
export function createChart(host: HTMLElement, options: ChartOptions): Chart {
  const { write } = options;
  const legend = element('ul', { className: 'legend' });
  const picture = svg('svg', { role: 'img', height: String(HEIGHT) });
  host.append(legend, picture);
  return {
    draw(lines, span) {
      legend.replaceChildren(
        ...lines.map(({ name, values }, at) =>
          element('li', { className: `line-${at}` }, `${name} `, element('strong', {}, write(values.at(-1) ?? null))),
        ),
      );
      const width = Math.max(260, host.clientWidth);
      picture.setAttribute('viewBox', `0 0 ${width} ${HEIGHT}`);
      picture.setAttribute('aria-label', describe(options, lines, span));
      picture.replaceChildren(...drawn(options, lines, span, width));
    },
  };
}

function describe({ title, write }: ChartOptions, lines: readonly Line[], span: Span): string {
  const said = lines.map(({ name, values }) => {
    const known = values.filter((value) => value !== null);
    if (known.length === 0) return `${name}: nothing measured`;
    return `${name}: now ${write(values.at(-1) ?? null)}, from ${write(Math.min(...known))} to ${write(Math.max(...known))}`;
  });
  return `${title} over the last ${ago(span.everyMs * span.kept)}. ${said.join('. ')}.`;
}

function drawn(
  { write, top, sizes = false }: ChartOptions,
  lines: readonly Line[],
  { everyMs, kept }: Span,
  width: number,
): Node[] {
  const highest = Math.max(...lines.flatMap(({ values }) => values.map((value) => value ?? 0)), 0);
  const most = top ?? (sizes ? roundUpSize(highest) : roundUp(highest));
  const x = (slot: number): number => LEFT + (slot * (width - LEFT - RIGHT)) / (kept - 1);
  const y = (value: number): number => ABOVE + (1 - Math.min(1, value / most)) * (HEIGHT - ABOVE - BELOW);
  const levels = [0, most / 2, most].flatMap((level) => [
    svg('line', { class: 'grid', x1: LEFT, x2: width - RIGHT, y1: y(level), y2: y(level) }),
    svg('text', { x: LEFT - 8, y: y(level) + 4, 'text-anchor': 'end' }, write(level)),
  ]);
  const instants = (width < 420 ? [0, 1] : [0, 0.5, 1]).map((part) => {
    const label = part === 1 ? 'now' : `${ago((1 - part) * everyMs * kept)} ago`;
    const anchor = part === 0 ? 'start' : part === 1 ? 'end' : 'middle';
    return svg('text', { x: x(part * (kept - 1)), y: HEIGHT - 5, 'text-anchor': anchor }, label);
  });
  const paths = lines.map(({ values }, at) => {
    const first = kept - values.length;
    return svg('path', {
      class: `line-${at}`,
      d: pathOf(
        values.map((value, slot) => [x(first + slot), value]),
        y,
      ),
    });
  });
  return [...levels, ...instants, ...paths];
}

/** A gap where nothing was measured; a dot for a value that stands alone. */
function pathOf(points: readonly (readonly [x: number, value: number | null])[], y: (value: number) => number): string {
  let drawing = false;
  return points
    .map(([x, value], at) => {
      if (value === null) {
        drawing = false;
        return '';
      }
      const place = `${x.toFixed(1)} ${y(value).toFixed(1)}`;
      const alone = !drawing && (points[at + 1]?.[1] ?? null) === null;
      const step = `${drawing ? 'L' : 'M'}${place}${alone ? 'h2' : ''}`;
      drawing = true;
      return step;
    })
    .join('');
}

/** 1, 2 or 5 times a power of ten, so that the half of it is round too. */
function roundUp(value: number): number {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return power * ([1, 2, 5, 10].find((step) => step * power >= value) ?? 10);
}

function roundUpSize(value: number): number {
  return Math.max(1_024, 2 ** Math.ceil(Math.log2(Math.max(1, value))));
}

function ago(ms: number): string {
  const minutes = ms / 60_000;
  return minutes >= 60
    ? `${Math.round(minutes / 60)} h`
    : minutes === 1
      ? '1 minute'
      : `${Math.round(minutes)} minutes`;
}

function svg(name: string, attributes: Readonly<Record<string, string | number>>, text?: string): SVGElement {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  if (text !== undefined) made.textContent = text;
  return made;
}
