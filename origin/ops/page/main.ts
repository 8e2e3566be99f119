/** The live page of the origin: what it counts, and what operators do about media. */
import { createChart, type Line } from '../../../src/live/chart.js';
import { byId } from '../../../src/live/element.js';
import { followFigures, say, write } from '../../../src/live/figures.js';
import { bytes, count, span } from '../../../src/live/format.js';
import { followSpan, type History } from '../../../src/live/history.js';
import { openOperator } from '../../../src/live/operator.js';
import { fillTable } from '../../../src/live/table.js';
import { openDeadLetters } from './dead-letters.js';
import { openMedia } from './media.js';
import { openTakedowns } from './takedowns.js';

interface Queue {
  readonly waiting: number;
  readonly dead: number;
  readonly oldest_ms: number | null;
}

/** As `/stats` says it. */
interface Figures {
  readonly origin: string;
  readonly origins: number;
  readonly now: string;
  readonly started_at: string;
  readonly uploads: { readonly stored: number; readonly duplicates: number; readonly bytes: number };
  readonly refusals: readonly { readonly code: string; readonly uploads: number; readonly others: number }[];
  readonly thumbnails: Queue & { readonly in_hand: number };
  readonly webhooks: Queue | null;
  readonly has_token: boolean;
  readonly history: History;
}

const operator = openOperator(() => {
  letters.refresh();
  takedowns.refresh();
});
const letters = openDeadLetters(operator);
const takedowns = openTakedowns(operator);
openMedia(operator, () => takedowns.refresh());

const uploads = createChart(byId('uploads-chart', HTMLElement), { title: 'Uploads a second', write: count });
const received = createChart(byId('bytes-chart', HTMLElement), { title: 'Bytes a second', write: bytes, sizes: true });
const drawHistory = followSpan(({ rows, every_ms: everyMs, kept }) => {
  const line = (name: string, key: string): Line => ({ name, values: rows.map((row) => row[key] ?? null) });
  const shown = { everyMs, kept };
  uploads.draw([line('stored', 'stored'), line('duplicates', 'duplicates'), line('refused', 'refused')], shown);
  received.draw([line('received', 'bytes')], shown);
});

followFigures((told) => {
  const figures = told as Figures;
  const { origin, origins, refusals, thumbnails, webhooks } = figures;
  document.title = `${origin} · origin`;
  const others = origins === 1 ? '' : ` one of ${origins} origins,`;
  write({
    name: origin,
    uptime: `${others} up ${span(Date.parse(figures.now) - Date.parse(figures.started_at))}`,
    stored: count(figures.uploads.stored),
    duplicates: count(figures.uploads.duplicates),
    bytes: bytes(figures.uploads.bytes),
    'in-hand': count(thumbnails.in_hand),
  });
  for (const place of document.querySelectorAll('.of-this')) {
    place.textContent = origins === 1 ? 'Since its start.' : 'Of this origin alone, since its start.';
  }
  for (const place of document.querySelectorAll<HTMLElement>('.of-all')) {
    place.textContent = origins === 1 ? '' : `Of all ${origins} origins together.`;
    place.hidden = origins === 1;
  }
  fillTable(
    'refusals',
    refusals.map((each) => [each.code, count(each.uploads), count(each.others)]),
    'Nothing was refused.',
  );
  showQueue('thumbs', thumbnails);
  byId('webhooks', HTMLElement).hidden = webhooks === null;
  if (webhooks !== null) showQueue('webhooks', webhooks);
  letters.changed(thumbnails.dead, webhooks?.dead ?? 0);
  byId('no-token', HTMLElement).hidden = figures.has_token;
  drawHistory(figures.history);
});

function showQueue(name: 'thumbs' | 'webhooks', { waiting, dead, oldest_ms }: Queue): void {
  say(`${name}-state`, dead === 0 ? 'Nothing was given up' : `${count(dead)} given up`, dead === 0 ? 'good' : 'bad');
  write({ [`${name}-waiting`]: count(waiting), [`${name}-oldest`]: span(oldest_ms), [`${name}-dead`]: count(dead) });
}
