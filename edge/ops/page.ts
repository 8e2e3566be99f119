/**
 * The live page for operators: one document that holds its style and script and
 * requests `/stats` once a second. It loads nothing else; its content security
 * policy allows only the script and style with these hashes.
 */
import { createHash } from 'node:crypto';
import type { Reply } from '../../src/http/reply.js';

const STYLE = `
:root { color-scheme: light dark; --ink: #16202b; --soft: #5b6b7b; --line: #dfe5ea; --card: #fff; --page: #f4f6f8;
  --good: #0a7d55; --warn: #b26a00; --bad: #c02b37; --accent: #2463c9; --accent-soft: #2463c922; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8edf2; --soft: #93a3b3; --line: #26313c; --card: #151d26;
  --page: #0d131a; --good: #3ecf98; --warn: #f0ad4e; --bad: #ff6b76; --accent: #6ba4ff; --accent-soft: #6ba4ff22; } }
* { box-sizing: border-box; margin: 0; }
body { background: var(--page); color: var(--ink); font: 15px/1.45 system-ui, sans-serif; padding: 24px;
  max-width: 1120px; margin: 0 auto; }
header { display: flex; align-items: baseline; gap: 12px; margin-bottom: 20px; flex-wrap: wrap; }
h1 { font-size: 20px; font-weight: 650; letter-spacing: -0.01em; }
header .status { margin-left: auto; color: var(--soft); font-variant-numeric: tabular-nums; }
main { display: grid; gap: 14px; grid-template-columns: repeat(12, 1fr); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px;
  grid-column: span 4; min-width: 0; }
section.wide { grid-column: span 8; }
section.tall { grid-row: span 2; }
p + dl, .big + dl { margin-top: 10px; }
@media (max-width: 820px) { section, section.wide { grid-column: span 12; grid-row: auto; } body { padding: 14px; } }
h2 { font-size: 12px; font-weight: 600; color: var(--soft); text-transform: uppercase; letter-spacing: 0.06em;
  margin-bottom: 10px; }
.big { font-size: 40px; font-weight: 650; letter-spacing: -0.03em; line-height: 1.05; font-variant-numeric: tabular-nums; }
.big small { font-size: 15px; font-weight: 500; color: var(--soft); letter-spacing: 0; margin-left: 6px; }
dl { display: grid; grid-template-columns: auto 1fr; gap: 4px 14px; }
dt { color: var(--soft); }
dd { text-align: right; font-variant-numeric: tabular-nums; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.pill { display: inline-flex; align-items: center; gap: 7px; font-weight: 600; }
.pill::before { content: ''; width: 9px; height: 9px; border-radius: 50%; background: currentColor; }
#origins .pill { display: flex; font-weight: 400; }
.good { color: var(--good); } .warn { color: var(--warn); } .bad { color: var(--bad); }
.bar { height: 8px; border-radius: 4px; background: var(--line); overflow: hidden; margin: 8px 0 12px; }
.bar span { display: block; height: 100%; background: var(--accent); width: 0; transition: width 0.4s; }
.graph { position: relative; }
#begins { position: absolute; top: 50%; color: var(--soft); }
svg { display: block; width: 100%; height: 120px; }
svg path.line { fill: none; stroke: var(--accent); stroke-width: 2; vector-effect: non-scaling-stroke; }
svg path.area { fill: var(--accent-soft); }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { text-align: right; font-weight: 500; color: var(--soft); padding: 3px 0; }
th:first-child, td:first-child { text-align: left; }
td { text-align: right; padding: 5px 0; border-top: 1px solid var(--line); }
form { display: grid; grid-template-columns: 1fr auto; gap: 8px; }
label { color: var(--soft); font-size: 13px; grid-column: 1 / -1; }
label[hidden] { display: none; }
input { width: 100%; font: inherit; color: inherit; background: var(--page); border: 1px solid var(--line); border-radius: 6px; padding: 6px 8px; }
button { font: inherit; color: #fff; background: var(--accent); border: 0; border-radius: 6px; padding: 6px 14px; align-self: end; }
#why { white-space: pre-wrap; overflow-wrap: anywhere; font: 13px/1.5 ui-monospace, monospace; margin-top: 10px; }
#why:empty { display: none; }
#faults { color: var(--bad); white-space: pre-wrap; margin-top: 10px; }
#faults:empty { display: none; }
`;

const SCRIPT = `
'use strict';
const byId = (id) => document.getElementById(id);
const say = (id, text) => { byId(id).textContent = text; };
const count = (n) => n == null ? '–' : n.toLocaleString('en-US');
const bytes = (n) => {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let at = 0;
  while (n >= 1024 && at < units.length - 1) { n /= 1024; at += 1; }
  return (at === 0 ? n : n.toFixed(n < 10 ? 2 : 1)) + ' ' + units[at];
};
const percent = (ratio) => ratio == null ? '–' : (ratio * 100).toFixed(ratio > 0.995 ? 2 : 1) + ' %';
const since = (ms) => {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 90) return s + ' s';
  if (s < 5400) return Math.round(s / 60) + ' min';
  return s < 172800 ? Math.round(s / 3600) + ' h' : Math.round(s / 86400) + ' d';
};
const pill = (id, text, mood) => { const el = byId(id); el.textContent = text; el.className = 'pill ' + mood; };
const NAMES = { hit_memory: 'Hit in memory', hit_disk: 'Hit on disk', hit_filling: 'Hit while it arrives', stale: 'Served stale',
  revalidated: 'Revalidated', miss: 'Miss', pass: 'Passed on', refused: 'Refused', failed: 'Failed', own: 'Health checks' };
const SHOWN = 120;
let before = null;

function rows(outcomes, elapsed) {
  const body = byId('outcomes');
  body.replaceChildren(...Object.entries(outcomes).map(([name, now]) => {
    const row = document.createElement('tr');
    const then = before === null ? now : before.requests.outcomes[name] || now;
    const rate = elapsed > 0 ? (now.requests - then.requests) / elapsed : 0;
    for (const text of [NAMES[name] || name, count(now.requests), rate === 0 ? '' : rate.toFixed(rate < 10 ? 1 : 0), bytes(now.bytes)]) {
      const cell = document.createElement('td');
      cell.textContent = text;
      row.append(cell);
    }
    return row;
  }));
}
function tier(name, t) {
  say(name + '-used', bytes(t.used_bytes) + ' of ' + bytes(t.capacity_bytes));
  say(name + '-entries', count(t.entries));
  say(name + '-evictions', count(t.evictions));
  byId(name + '-bar').style.width = Math.min(100, 100 * t.used_bytes / Math.max(1, t.capacity_bytes)) + '%';
}
function origins(all) {
  byId('origins').hidden = all.length < 2;
  byId('origins').replaceChildren(...all.map(({ url, state, followed }) => {
    const row = document.createElement('p');
    row.className = 'pill ' + ({ up: 'good', unready: 'warn', down: 'bad' }[state] || 'warn');
    row.textContent = url.split('/')[2] + ' ' + state + (followed ? ', followed' : '');
    return row;
  }));
}
function draw(rates) {
  const most = Math.max(...rates), top = Math.max(1, most);
  const short = (rate) => Number(rate.toFixed(rate < 10 ? 1 : 0));
  say('rate', short(rates[rates.length - 1]));
  say('most', short(most));
  byId('begins').hidden = rates.length > 1;
  const x = (index) => ((index + SHOWN - rates.length) * 600 / (SHOWN - 1)).toFixed(1);
  const line = rates.map((rate, index) => (index === 0 ? 'M' : 'L') + x(index) + ' ' + (118 - rate / top * 110).toFixed(1)).join('');
  byId('line').setAttribute('d', line);
  byId('area').setAttribute('d', line + 'L600 120L' + x(0) + ' 120Z');
}
function show(stats) {
  const elapsed = before === null ? 0 : (Date.parse(stats.now) - Date.parse(before.now)) / 1000;
  draw(stats.requests.per_second);
  document.title = stats.edge + ' · edge';
  say('name', stats.edge);
  say('uptime', 'up ' + since(Date.parse(stats.now) - Date.parse(stats.started_at)));
  say('hit', percent(stats.requests.hit_ratio));
  say('hit-bytes', percent(stats.requests.byte_hit_ratio));
  say('filling', count(stats.cache.filling));
  say('passing', count(stats.requests.passing));
  say('corrupt', count(stats.cache.corrupt));
  tier('memory', stats.cache.memory);
  tier('disk', stats.cache.disk);
  const open = stats.upstream.breaker;
  pill('breaker', { closed: 'Breaker closed', half_open: 'Breaker half open', open: 'Breaker open' }[open] || open, open === 'closed' ? 'good' : open === 'open' ? 'bad' : 'warn');
  say('in-flight', count(stats.upstream.in_flight));
  say('sent', count(stats.upstream.requests));
  say('failures', count(stats.upstream.failures));
  origins(stats.upstream.origins);
  const journal = stats.journal, lease = stats.lease;
  byId('journal').hidden = journal === null;
  if (journal !== null && lease !== null) {
    const text = { held: 'Current', lapsed: 'Cut off', new: 'Not yet current' }[lease.state] || lease.state;
    pill('lease', text, lease.state === 'held' ? 'good' : lease.may_serve === 'refuse' ? 'bad' : 'warn');
    say('may', { yes: 'served', revalidate: 'revalidated', refuse: 'refused' }[lease.may_serve] || lease.may_serve);
    say('ago', lease.current_ms_ago === null ? '–' : since(lease.current_ms_ago) + ' ago');
    say('applied', count(journal.applied) + ' of ' + count(journal.newest));
    say('link', journal.link);
    say('purges', count(journal.purges));
  }
  say('policy', since(Date.parse(stats.now) - Date.parse(stats.policy.read_at)) + ' ago');
  say('faults', stats.policy.faults.join('\\n'));
  rows(stats.requests.outcomes, elapsed);
  before = stats;
}
byId('explain').addEventListener('submit', async (event) => {
  event.preventDefault();
  const token = byId('token').value;
  const headers = { 'content-type': 'application/json', ...(token === '' ? {} : { authorization: 'Bearer ' + token }) };
  try {
    const answer = await fetch('/explain', { method: 'POST', headers, body: JSON.stringify({ url: byId('url').value }) });
    const told = await answer.json();
    byId('token-label').hidden = answer.status !== 401 && token === '';
    say('why', answer.ok ? told.explanations.map((each) => [each.target + ' at ' + each.edge, ...each.says].join('\\n')).join('\\n\\n') : told.detail || told.title);
  } catch {
    say('why', 'No answer.');
  }
});
async function poll() {
  try {
    const answer = await fetch('/stats', { cache: 'no-store', signal: AbortSignal.timeout(5000) });
    show(await answer.json());
    pill('live', 'Live', 'good');
  } catch {
    pill('live', 'No answer', 'bad');
  }
}
let askedAt = -1000;
// A hidden page gets no frames, so it requests nothing.
requestAnimationFrame(function frame(at) {
  if (at - askedAt >= 1000) { askedAt = at; poll(); }
  requestAnimationFrame(frame);
});
`;

const MARKUP = `
<header><h1 id="name">edge</h1><span id="live" class="pill warn">Loading</span><span class="status" id="uptime"></span></header>
<main>
<section><h2>Hit ratio</h2><p class="big"><span id="hit">–</span><small>of requests</small></p>
<dl><dt>of bytes</dt><dd id="hit-bytes">–</dd><dt>arriving now</dt><dd id="filling">–</dd><dt>passed on now</dt><dd id="passing">–</dd></dl></section>
<section class="wide graph"><h2>Requests a second · <span id="rate">–</span> now, <span id="most">–</span> at most</h2>
<p id="begins">Nothing is counted yet. The last two minutes will show here.</p>
<svg viewBox="0 0 600 120" preserveAspectRatio="none" role="img" aria-label="Requests a second over the last two minutes">
<path class="area" id="area"/><path class="line" id="line"/></svg></section>
<section><h2>Memory</h2><div id="memory-used">–</div><div class="bar"><span id="memory-bar"></span></div>
<dl><dt>entries</dt><dd id="memory-entries">–</dd><dt>evicted</dt><dd id="memory-evictions">–</dd></dl></section>
<section><h2>Disk</h2><div id="disk-used">–</div><div class="bar"><span id="disk-bar"></span></div>
<dl><dt>entries</dt><dd id="disk-entries">–</dd><dt>evicted</dt><dd id="disk-evictions">–</dd><dt>found corrupt</dt><dd id="corrupt">–</dd></dl></section>
<section><h2>Origin</h2><p><span id="breaker" class="pill">–</span></p><div id="origins" hidden></div>
<dl><dt>in flight</dt><dd id="in-flight">–</dd><dt>requests</dt><dd id="sent">–</dd><dt>failed</dt><dd id="failures">–</dd></dl></section>
<section id="journal"><h2>Takedowns</h2><p><span id="lease" class="pill">–</span></p>
<dl><dt>copies are</dt><dd id="may">–</dd><dt>current</dt><dd id="ago">–</dd><dt>applied</dt><dd id="applied">–</dd>
<dt>link</dt><dd id="link">–</dd><dt>cache emptied</dt><dd id="purges">–</dd></dl></section>
<section class="wide tall"><h2>How requests ended</h2><table><thead><tr><th>outcome</th><th>requests</th><th>a second</th><th>sent</th></tr></thead>
<tbody id="outcomes"></tbody></table></section>
<section class="wide"><h2>Why is it answered so?</h2><form id="explain">
<label for="url">A URL or a path. Without a credential, it is explained as for a caller who has none.</label>
<input id="url" name="url" required autocomplete="off" spellcheck="false"><button>Explain</button>
<label for="token" id="token-label" hidden>The token for operators<input id="token" type="password" autocomplete="off"></label></form>
<p id="why" role="status"></p></section>
<section><h2>Policy</h2><dl><dt>read</dt><dd id="policy">–</dd></dl><div id="faults" role="alert"></div></section>
</main>`;

const PAGE = Buffer.from(
  `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>edge</title>` +
    `<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">` +
    `<style>${STYLE}</style></head><body>${MARKUP}<script>${SCRIPT}</script></body></html>`,
);

const hashOf = (text: string): string => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;

const POLICY = [
  `default-src 'none'`,
  // The script sets the width of a bar as a property, which the policy does not restrict.
  `style-src ${hashOf(STYLE)}`,
  `script-src ${hashOf(SCRIPT)}`,
  `connect-src 'self'`,
  `img-src data:`,
  `base-uri 'none'`,
  `form-action 'none'`,
  `frame-ancestors 'none'`,
].join('; ');

export function pageReply(): Reply {
  return {
    status: 200,
    headers: [
      ['content-type', 'text/html; charset=utf-8'],
      ['cache-control', 'no-store'],
      ['content-security-policy', POLICY],
      ['x-content-type-options', 'nosniff'],
      ['referrer-policy', 'no-referrer'],
      ['cross-origin-opener-policy', 'same-origin'],
    ],
    body: { kind: 'bytes', bytes: PAGE },
  };
}
