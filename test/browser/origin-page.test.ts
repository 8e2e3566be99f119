/**
 * In a real browser: the live page of an origin, in front of a whole origin. `SCREENSHOTS=FOLDER` keeps what it looked
 * like.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { BrowserContextOptions, Page } from 'playwright-core';
import t from 'tap';
import {
  browserInstalled,
  isAccessible,
  keepPicture,
  newPage,
  openBrowser,
  reachedByKeyboard,
  watchErrors,
} from '../kit/browser.js';
import { untilInTime } from '../kit/clock.js';
import { answers, openHookReceiver, takes } from '../kit/http/hook-receiver.js';
import { json, member, sendRequest } from '../kit/http/request.js';
import { png } from '../kit/media.js';
import { startOrigin } from '../kit/origin/origin.js';
import { FILE_HANGS_AFTER_MS } from '../kit/until.js';

t.setTimeout(FILE_HANGS_AFTER_MS);

const TOKEN = 'a token of operators, long enough';
const HOSTILE = '<img src=x onerror=alert(1)>';
const SECRET = `whsec_${Buffer.from('of the chat server'.padEnd(32, '.')).toString('base64')}`;
const NOBODY_SCANS = { scan: { by: 'clamd', address: 'tcp:127.0.0.1:1', retry: '10d', retry_max: '10d' } };

void t.test('the page of an origin in a browser', browserInstalled, async (t) => {
  const chat = await openHookReceiver();
  chat.answer = answers(503);
  const origin = await startOrigin(
    join(t.testdir(), 'origin'),
    {
      name: 'origin-a',
      operators: { port: 0, token: 'env:OPERATORS' },
      thumbs: { enabled: false },
      upload: NOBODY_SCANS,
      webhooks: { url: chat.url, secrets: ['env:HOOKS'], give_up: '1m', retry: '1s' },
    },
    { secrets: { OPERATORS: TOKEN, HOOKS: SECRET } },
  );
  const upload = async (owner: string, seed: number, query = ''): Promise<string> =>
    member(await origin.as(owner, `/v1/media${query}`, { method: 'POST', body: png(seed) }), 'id');
  const held = await upload('ada', 1, '?filename=held.png');
  const hostile = await upload(HOSTILE, 2, `?filename=${encodeURIComponent(HOSTILE)}.png`);
  const bad = await upload('ada', 3);
  const mark = `/quarantine?reason=${encodeURIComponent(HOSTILE)}`;
  for (const id of [hostile, bad]) await origin.asAdmin(`/v1/media/${id}${mark}`, { method: 'POST' });
  const removed = await upload('bob', 4);
  await origin.asAdmin(`/v1/media/${removed}`, { method: 'DELETE' });
  await origin.as('ada', '/v1/media', {
    method: 'POST',
    body: 'not a picture',
    headers: { 'content-type': 'image/png' },
  });
  await untilInTime(
    'a dead letter',
    origin.clock,
    async () => json(await sendRequest(`${origin.operators}/webhooks`))['dead'] !== 0,
    10_000,
  );

  const browser = await openBrowser(t);
  const addresses: string[] = [];
  const open = async (options: BrowserContextOptions = {}) => {
    const page = await newPage(browser, { viewport: { width: 1_200, height: 900 }, ...options });
    page.on('request', (request) => addresses.push(request.url()));
    const errors = watchErrors(page);
    await page.goto(origin.operators);
    await page.getByText('Live', { exact: true }).waitFor();
    return { page, errors };
  };
  const { page, errors } = await open();
  const status = (text: string | RegExp, shown: Page = page) =>
    shown.getByRole('status').filter({ hasText: text }).waitFor();

  await t.test('without the token it shows figures, and no media and no owners', async (t) => {
    await page
      .getByText(/Uploads a second over|Since its start/)
      .first()
      .waitFor();
    t.match(await page.locator('#stored').textContent(), '4');
    const refused = page.getByRole('row', { name: /type_mismatch/ });
    t.match(await refused.textContent(), /type_mismatch\s*1\s*0/);
    await page.getByRole('button', { name: 'Show what is withheld' }).click();
    await status(/This needs the token for operators/);
    const text = (await page.locator('body').textContent()) ?? '';
    for (const secret of [held, bad, removed, HOSTILE]) t.notOk(text.includes(secret), secret);
    t.ok(await page.getByText('Give the token to see them.').isVisible());
  });

  await t.test('a graph begins with what was counted before the page was opened', async (t) => {
    origin.clock.advance(3_000);
    const picture = page.getByRole('img', { name: /Uploads a second over the last 2 minutes/ });
    await picture.waitFor();
    t.match(await picture.getAttribute('aria-label'), /stored: now 0, from 0 to [\d.]+/);
    t.match(await picture.textContent(), /2 minutes ago.*now/);
    await page.getByRole('radio', { name: '6 hours' }).check();
    await page.getByRole('img', { name: /Uploads a second over the last 6 h/ }).waitFor();
    await page.getByRole('radio', { name: '2 minutes' }).check();
  });

  await t.test('a wrong token opens nothing, and the right one shows what is withheld, as text', async (t) => {
    await page.getByLabel('Token', { exact: true }).fill('a wrong one');
    await page.keyboard.press('Enter');
    await page.getByRole('button', { name: 'Show what is withheld' }).click();
    await status(/This needs the token for operators/);
    await page.getByLabel('Token', { exact: true }).fill(TOKEN);
    await page.keyboard.press('Enter');
    await page.getByRole('button', { name: 'Show what is withheld' }).click();
    await page
      .getByRole('row', { name: new RegExp(held) })
      .getByText('awaits the scanner')
      .waitFor();
    const row = page.locator('#withheld').getByRole('row', { name: new RegExp(hostile) });
    t.match(await row.textContent(), HOSTILE, 'the reason and the owner');
    t.equal(await page.locator('img').count(), 0);
    await page
      .locator('#takedowns')
      .getByRole('row', { name: /deleted/ })
      .getByText(removed)
      .waitFor();
    await page
      .getByRole('row', { name: /media\.ready|media\.deleted/ })
      .first()
      .waitFor();
  });

  await t.test('one is released with the keyboard, for a reason that the audit log has', async (t) => {
    await page.getByRole('button', { name: `Release ${bad}` }).focus();
    await page.keyboard.press('Enter');
    const dialog = page.getByRole('dialog', { name: 'Release?' });
    await dialog.waitFor();
    await page.keyboard.press('Escape');
    await dialog.waitFor({ state: 'hidden' });
    await page.keyboard.press('Enter');
    await page.keyboard.type('a mistake');
    await page.keyboard.press('Enter');
    await status(new RegExp(`${bad}: released. 0 of 0 edges have confirmed`));
    await page
      .locator('#withheld')
      .getByRole('row', { name: new RegExp(bad) })
      .waitFor({ state: 'detached' });
    t.equal((await origin.as('ada', `/v1/media/${bad}`)).status, 200);
    t.match(await lastAct(origin.folder, 'restore'), { by: 'operator', target: bad, reason: 'a mistake' });
  });

  await t.test('all media of one owner are shown, quarantined, restored and deleted', async (t) => {
    await page.getByLabel(/Owner, the subject/).fill('ada');
    await page.getByRole('button', { name: 'Show their media' }).click();
    const part = page.getByRole('region', { name: 'All media of one owner' });
    const act = async (name: string, said: RegExp): Promise<void> => {
      await part.getByRole('button', { name, exact: true }).click();
      await page
        .getByRole('dialog')
        .getByLabel(/Reason/)
        .fill('spam');
      await page.keyboard.press('Enter');
      await status(said);
    };
    const owned = page.locator('#owned').getByRole('row', { name: new RegExp(bad) });
    await owned.getByText('live', { exact: true }).waitFor();
    await act('Quarantine all', /ada: \d quarantined\./);
    await owned.getByText('quarantined', { exact: true }).waitFor();
    await act('Restore all', /ada: \d released\./);
    await owned.getByText('live', { exact: true }).waitFor();
    await act(`Delete ${bad}`, new RegExp(`${bad}: deleted`));
    await owned.getByText('deleted', { exact: true }).waitFor();
    t.match(await lastAct(origin.folder, 'delete'), { by: 'operator', target: bad, reason: 'spam' });
    await act('Delete all', /ada: \d deleted\./);
    t.match(await lastAct(origin.folder, 'delete_owner'), { by: 'operator', owner: 'ada', reason: 'spam' });
    await page.locator('#takedowns').getByText(bad).first().waitFor();
  });

  await t.test('dead letters are sent again', async () => {
    chat.answer = takes;
    await page.getByRole('button', { name: 'Send all again' }).click();
    await status(/are in the queue again/);
  });

  await t.test('it has no faults that axe-core finds, in light and dark, wide and narrow', async (t) => {
    const narrow = (await open({ viewport: { width: 390, height: 844 }, deviceScaleFactor: 2 })).page;
    await narrow.getByLabel('Token', { exact: true }).fill(TOKEN);
    await narrow.keyboard.press('Enter');
    await narrow.getByRole('button', { name: 'Show what is withheld' }).click();
    await narrow
      .locator('#withheld')
      .getByRole('row', { name: new RegExp(hostile) })
      .waitFor();
    for (const colorScheme of ['light', 'dark'] as const) {
      for (const [name, each] of [
        ['wide', page],
        ['narrow', narrow],
      ] as const) {
        await each.emulateMedia({ colorScheme });
        await isAccessible(t, each, `${name}, ${colorScheme}`);
        await keepPicture(each, `origin-${name}-${colorScheme}`);
      }
    }
  });

  await t.test('everything is reached with the keyboard', async (t) => {
    await page.locator('body').click({ position: { x: 1, y: 1 } });
    const reached = await reachedByKeyboard(page, 40);
    for (const name of [
      'Use it',
      'Forget it',
      'Show what is withheld',
      'Show their media',
      'Delete all',
      'Read them again',
    ]) {
      t.ok(reached.includes(name), name);
    }
  });

  await t.test('one of several origins says what it counts for itself and what for all', async (t) => {
    const figures = { ...json(await sendRequest(`${origin.operators}/stats`)), origins: 2 };
    const other = await newPage(browser);
    await other.route('**/events', (route) =>
      route.fulfill({ contentType: 'text/event-stream', body: `data: ${JSON.stringify(figures)}\n\n` }),
    );
    await other.goto(origin.operators);
    await other.getByText('one of 2 origins').waitFor();
    t.equal(await other.getByText('Of this origin alone, since its start.').count(), 3);
    t.equal(await other.getByText('Of all 2 origins together.').filter({ visible: true }).count(), 5);
  });

  t.same(
    errors.filter((line) => !/status of 401/.test(line)),
    [],
    'nothing in the console but that the token was needed',
  );
  const told = [...addresses, ...origin.logged].join('\n');
  t.notOk(told.includes(TOKEN) || told.includes(encodeURIComponent(TOKEN)), 'the token is in no address and no log');
  // The folder of the test is removed before its teardown.
  await browser.close();
  await origin.close();
  await chat.close();
});

async function lastAct(folder: string, act: string): Promise<Readonly<Record<string, unknown>>> {
  const lines = (await readFile(join(folder, 'audit', 'audit.jsonl'), 'utf8')).trimEnd().split('\n');
  const acts = lines.map((line) => JSON.parse(line) as Readonly<Record<string, unknown>>);
  return acts.findLast((each) => each['act'] === act) ?? {};
}
