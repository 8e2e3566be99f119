/**
 * A sweep as one SVG and as one page: hit ratios of objects and of bytes over the
 * size of a tier. Pure. Policies differ by colour, dashes and marks, so that no
 * reader depends on colours; the page has the figures as tables too. Nothing is
 * loaded from elsewhere, and there is no script.
 */
import type { PolicyName } from '../cache/policy/registry.js';
import { percent, bytes as sizeText } from './report.js';
import type { Sweep, SweepPoint } from './sweep.js';

type Unit = 'objects' | 'bytes';

/** Colours by Okabe and Ito, darker on white and lighter on black, so that they can be told apart there. */
const LOOKS: Readonly<Record<PolicyName, { light: string; dark: string; dashes: string; mark: string }>> = {
  lru: { light: '#0072b2', dark: '#56b4e9', dashes: '', mark: 'M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z' },
  fifo: { light: '#55606b', dark: '#b8c2cc', dashes: '2 4', mark: 'M-4 -4h8v8h-8z' },
  sieve: { light: '#00795a', dark: '#35cfa0', dashes: '8 4', mark: 'M0 -5L5 4H-5z' },
  's3-fifo': { light: '#c24e00', dark: '#ff9a52', dashes: '', mark: 'M0 -5L5 0L0 5L-5 0z' },
  gdsf: { light: '#a3467c', dark: '#eaa9cd', dashes: '10 3 2 3', mark: 'M0 5L5 -4H-5z' },
  'w-tinylfu': { light: '#7d6300', dark: '#f0e442', dashes: '5 3', mark: 'M-4 -4L4 4M4 -4L-4 4' },
};

const [WIDTH, HEIGHT] = [980, 486];
const PANEL = { top: 78, height: 300, width: 400 };
const LEFTS: Readonly<Record<Unit, number>> = { objects: 60, bytes: 550 };
const TITLES: Readonly<Record<Unit, string>> = { objects: 'Object hit ratio', bytes: 'Byte hit ratio' };

export function sweepSvg(sweep: Sweep): string {
  const { tier, requests, keys, beside } = sweep;
  const title = `Hit ratio over the size of the ${tier} tier`;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-labelledby="sweep-title sweep-about" class="sweep">`,
    `<title id="sweep-title">${title}</title>`,
    `<desc id="sweep-about">${escaped(bestOf(sweep))}</desc>`,
    `<style>${STYLE}</style>`,
    `<rect width="${WIDTH}" height="${HEIGHT}" class="page"/>`,
    `<text x="12" y="22" class="title">${title}</text>`,
    `<text x="12" y="40" class="soft">${requests.toLocaleString('en-US')} requests for ${keys.toLocaleString('en-US')} keys; ${besideText(beside)}</text>`,
    panel(sweep, 'objects'),
    panel(sweep, 'bytes'),
    legend(sweep),
    '</svg>',
    '',
  ].join('\n');
}

function besideText({ tier, policy, sizeBytes }: Sweep['beside']): string {
  return sizeBytes === 0 ? `no ${tier} tier` : `${tier} tier of ${sizeText(sizeBytes)}, ${policy}`;
}

const STYLE = [
  '.sweep{font:12px system-ui,sans-serif;--ink:#16202b;--soft:#52606d;--line:#d5dce3;--page:#fff}',
  '@media(prefers-color-scheme:dark){.sweep{--ink:#e8edf2;--soft:#a3b1bf;--line:#33414e;--page:#11171e}}',
  '.sweep text{fill:var(--ink)}.sweep .soft{fill:var(--soft)}.sweep .title{font-size:15px;font-weight:600}',
  '.sweep .page{fill:var(--page)}.sweep .grid{stroke:var(--line)}.sweep .axis{stroke:var(--soft)}',
  '.sweep .set{stroke:var(--ink);stroke-dasharray:1 3}.sweep .end{text-anchor:end}.sweep .middle{text-anchor:middle}',
  '.sweep .curve{fill:none;stroke-width:2;stroke:var(--of)}.sweep .mark{fill:var(--of);stroke:var(--of);stroke-width:1.5}',
  ...Object.entries(LOOKS).map(([name, { light }]) => `.sweep .${name}{--of:${light}}`),
  '@media(prefers-color-scheme:dark){',
  ...Object.entries(LOOKS).map(([name, { dark }]) => `.sweep .${name}{--of:${dark}}`),
  '}',
].join('');

interface Scales {
  readonly x: (sizeBytes: number) => number;
  readonly y: (ratio: number) => number;
}

function panel(sweep: Sweep, unit: Unit): string {
  const left = LEFTS[unit];
  const right = left + PANEL.width;
  const bottom = PANEL.top + PANEL.height;
  const points = sweep.curves.flatMap((curve) => curve.points);
  const sizes = points.map(({ sizeBytes }) => sizeBytes);
  const [least, most] = [Math.log2(Math.min(...sizes)), Math.log2(Math.max(...sizes))];
  const top = topOf(points.map((point) => point[unit] ?? 0));
  const scales: Scales = {
    x: (sizeBytes) => left + ((Math.log2(sizeBytes) - least) / Math.max(1e-9, most - least)) * PANEL.width,
    y: (ratio) => bottom - (ratio / top) * PANEL.height,
  };
  const step = top > 0.5 ? 0.2 : 0.1;
  const steps = Array.from({ length: Math.floor(top / step + 1e-9) + 1 }, (_, at) => at * step);
  const ticks = [...new Set(sizes)].filter((_, at) => at % 2 === 1);
  return [
    `<text x="${left}" y="${PANEL.top - 8}">${TITLES[unit]}, %</text>`,
    ...steps.map(
      (ratio) =>
        `<path class="grid" d="M${left} ${px(scales.y(ratio))}H${right}"/><text class="soft end" x="${left - 6}" y="${px(scales.y(ratio) + 4)}">${Math.round(ratio * 100)}</text>`,
    ),
    ...ticks.map(
      (size) =>
        `<path class="axis" d="M${px(scales.x(size))} ${bottom}v5"/><text class="soft middle" x="${px(scales.x(size))}" y="${bottom + 18}">${sizeText(size)}</text>`,
    ),
    `<path class="axis" d="M${left} ${bottom}H${right}"/>`,
    `<text class="soft middle" x="${left + PANEL.width / 2}" y="${bottom + 36}">size of the ${sweep.tier} tier</text>`,
    ...setSizes(sweep, { least: 2 ** least, most: 2 ** most }).map(
      ({ sizeBytes, name }, at) =>
        `<path class="set" d="M${px(scales.x(sizeBytes))} ${PANEL.top}V${bottom}"/><text class="soft end" x="${px(scales.x(sizeBytes) - 4)}" y="${PANEL.top + 12 + 14 * at}">${name}</text>`,
    ),
    ...sweep.curves.map(({ policy, points: own }) => curve(policy, own, unit, scales)),
  ].join('\n');
}

/** The sizes of the configurations, if the drawing has them. */
function setSizes(
  { todayBytes, nextBytes }: Sweep,
  { least, most }: { readonly least: number; readonly most: number },
): readonly { readonly sizeBytes: number; readonly name: string }[] {
  const both = todayBytes === nextBytes;
  const sizes = [
    { sizeBytes: todayBytes, name: both ? 'today, new' : 'today' },
    ...(both ? [] : [{ sizeBytes: nextBytes, name: 'new' }]),
  ];
  return sizes.filter(({ sizeBytes }) => sizeBytes >= least && sizeBytes <= most);
}

function curve(policy: PolicyName, points: readonly SweepPoint[], unit: Unit, { x, y }: Scales): string {
  const places = points.map((point) => [px(x(point.sizeBytes)), px(y(point[unit] ?? 0))] as const);
  const line = places.map(([left, top], at) => `${at === 0 ? 'M' : 'L'}${left} ${top}`).join('');
  const marks = places.map(
    ([left, top], at) =>
      `<path class="mark" transform="translate(${left} ${top})" d="${LOOKS[policy].mark}"><title>${policy}, ${sizeText(points[at]?.sizeBytes ?? 0)}: ${percent(points[at]?.[unit] ?? null)}</title></path>`,
  );
  return `<g class="${policy}"><path class="curve"${dashesOf(policy)} d="${line}"/>${marks.join('')}</g>`;
}

function legend({ curves }: Sweep): string {
  const step = (WIDTH - LEFTS.objects) / curves.length;
  return curves
    .map(
      ({ policy }, at) =>
        `<g class="${policy}" transform="translate(${px(LEFTS.objects + at * step)} ${HEIGHT - 24})"><path class="curve"${dashesOf(policy)} d="M0 0H44"/><path class="mark" transform="translate(22 0)" d="${LOOKS[policy].mark}"/><text x="52" y="4">${policy}</text></g>`,
    )
    .join('\n');
}

function dashesOf(policy: PolicyName): string {
  const { dashes } = LOOKS[policy];
  return dashes === '' ? '' : ` stroke-dasharray="${dashes}"`;
}

/** The next tenth. */
function topOf(ratios: readonly number[]): number {
  return Math.min(1, Math.max(0.1, Math.ceil(Math.max(0, ...ratios) * 10) / 10));
}

function px(value: number): string {
  return value.toFixed(1);
}

/** The page: the drawing, and its figures as tables. */
export function sweepPage(sweep: Sweep, caveats: readonly string[]): string {
  const title = `Hit ratio over the size of the ${sweep.tier} tier`;
  const notes = [
    ...(sweep.sampleShare < 1
      ? [`${(sweep.sampleShare * 100).toPrecision(3)} % of the keys were simulated, in tiers of as much of their size`]
      : []),
    ...caveats,
  ];
  return [
    '<!doctype html>',
    '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">',
    `<meta http-equiv="content-security-policy" content="default-src 'none'; style-src 'unsafe-inline'">`,
    `<title>${title}</title><style>${PAGE_STYLE}</style></head><body><main>`,
    `<h1>${title}</h1><p>${escaped(bestOf(sweep))}</p>`,
    `<div class="wide" tabindex="0" role="region" aria-label="Drawing">${sweepSvg(sweep)}</div>`,
    ...notes.map((note) => `<p>Note: ${escaped(note)}.</p>`),
    table(sweep, 'objects'),
    table(sweep, 'bytes'),
    '</main></body></html>',
    '',
  ].join('\n');
}

const PAGE_STYLE = [
  ':root{color-scheme:light dark;--ink:#16202b;--line:#d5dce3;--page:#fff}',
  '@media(prefers-color-scheme:dark){:root{--ink:#e8edf2;--line:#33414e;--page:#11171e}}',
  'body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif}',
  'main{max-width:1000px;margin:0 auto;padding:16px}h1{font-size:20px}svg{width:100%;min-width:640px;display:block}',
  '.wide{overflow-x:auto}th,td{white-space:nowrap}table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:8px 0 24px}',
  'caption{text-align:left;font-weight:600;padding:4px 0}th,td{padding:3px 12px 3px 0;text-align:right;border-top:1px solid var(--line)}',
].join('');

function table({ curves, tier }: Sweep, unit: Unit): string {
  const heads = curves.map(({ policy }) => `<th scope="col">${policy}</th>`).join('');
  const sizes = curves[0]?.points.map(({ sizeBytes }) => sizeBytes) ?? [];
  const rows = sizes.map((size, at) => {
    const cells = curves.map(({ points }) => `<td>${percent(points[at]?.[unit] ?? null)}</td>`).join('');
    return `<tr><th scope="row">${sizeText(size)}</th>${cells}</tr>`;
  });
  return `<div class="wide" tabindex="0" role="region" aria-label="${TITLES[unit]}"><table><caption>${TITLES[unit]}</caption><thead><tr><th scope="col">${tier}</th>${heads}</tr></thead><tbody>${rows.join('')}</tbody></table></div>`;
}

/** What the drawing shows, in a sentence: the best policy at the size that is configured now, or at the next one drawn. */
function bestOf({ curves, todayBytes }: Sweep): string {
  const sizes = curves[0]?.points.map(({ sizeBytes }) => sizeBytes) ?? [];
  const above = sizes.findIndex((size) => size >= todayBytes);
  const at = above < 0 ? sizes.length - 1 : above;
  const ranked = curves
    .map(({ policy, points }) => ({ policy, point: points[at] }))
    .sort((one, other) => (other.point?.objects ?? 0) - (one.point?.objects ?? 0));
  const [best] = ranked;
  if (best?.point === undefined) return '';
  const { objects, bytes, sizeBytes } = best.point;
  return `At ${sizeText(sizeBytes)}, ${best.policy} has the highest object hit ratio: ${percent(objects)} of requests, and ${percent(bytes)} of bytes.`;
}

function escaped(text: string): string {
  return text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;').replace(/"/g, '&quot;');
}
