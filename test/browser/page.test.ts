/**
 * In a real browser: the live page of an edge, and signed links in a page of another site. `SCREENSHOTS=FOLDER` keeps
 * what it looked like.
 */
import t from 'tap';
import {
  browserInstalled,
  isAccessible,
  keepPicture,
  linksTo,
  newPage,
  openBrowser,
  openPage,
  openSite,
  reachedByKeyboard,
  uploadTo,
} from '../kit/browser.js';
import { sendRequest } from '../kit/http/request.js';
import { makeJpeg } from '../kit/pictures.js';
import { type Service, startService } from '../kit/service.js';
import { FILE_HANGS_AFTER_MS, untilAsync } from '../kit/until.js';

t.setTimeout(FILE_HANGS_AFTER_MS);

void t.test('in a browser', browserInstalled, async (t) => {
  const service = await startService(t.testdir());
  t.teardown(() => service.stop());
  const browser = await openBrowser(t);
  const token = await service.token();
  const admin = await service.token({ admin: true });

  await t.test('the page for operators shows live figures of the edge, without an error in the console', async (t) => {
    const id = await upload(service, token);
    for (let times = 0; times < 3; times += 1) await get(service, `/v1/media/${id}`, token);
    const { page, errors } = await openPage(browser);
    await page.goto(service.edgeOperators);
    await page.getByText('Live', { exact: true }).waitFor();
    // What was counted before the page was opened is in its graphs.
    const graph = page.getByRole('img', { name: /^Hit ratio over the last 2 minutes\. of requests: now/ });
    await graph.waitFor();
    t.match(await graph.textContent(), /0 %.*100 %.*2 minutes ago.*now/);
    t.match(await graph.getAttribute('aria-label'), /of requests: now .*, from .* to [\d.]+ %/);
    for (const name of [/^Requests a second over/, /^Time to the first byte/, /^Bytes in the tiers/]) {
      await page.getByRole('img', { name }).waitFor();
    }
    const row = page.getByRole('row', { name: /Hit in memory/ });
    t.match(await row.textContent(), /Hit in memory\s*2/);
    // From now on the edge also looks at single requests.
    await page.getByText(/^Of \d+ requests in/).waitFor();
    const path = `/v1/media/${id}`;
    await untilAsync('the object to be counted', async () => {
      await get(service, path, token);
      return page.locator('#objects').getByRole('rowheader', { name: path }).isVisible();
    });
    const unknown = '/v1/media/01ARZ3NDEKTSV4RRFFQ69G5FAV';
    await get(service, unknown, token);
    await page
      .locator('#misses')
      .getByRole('rowheader', { name: new RegExp(`${unknown} \\w+`) })
      .waitFor();
    await page
      .locator('#slowest')
      .getByRole('row', { name: new RegExp(`GET ${unknown}.*miss, \\w+.*404`) })
      .waitFor();
    await sendRequest(`${service.edge}${path}`, { method: 'DELETE', headers: { authorization: `Bearer ${admin}` } });
    await page
      .locator('#takedowns')
      .getByRole('row', { name: new RegExp(`deleted.*${id}.*applied here`) })
      .waitFor();
    t.same(errors, []);
  });

  await t.test('it explains what a request would be answered with', async (t) => {
    const id = await upload(service, token);
    await get(service, `/v1/media/${id}`, token);
    const { page } = await openPage(browser);
    await page.goto(service.edgeOperators);
    await page.getByRole('textbox', { name: /A URL or a path/ }).fill(`${service.edge}/v1/media/${id}`);
    await page.keyboard.press('Enter');
    await page.getByText(/Refused \(401\): it is private/).waitFor();
    t.match(await page.locator('#why').textContent(), /Stored: in the memory tier, 200, image\/jpeg/);
    await page.getByRole('textbox', { name: /A URL or a path/ }).fill('<img src=x onerror=alert(1)>');
    await page.keyboard.press('Enter');
    await page
      .locator('#why')
      .getByText(/malformed/)
      .waitFor();
    t.equal(await page.locator('img').count(), 0);
  });

  await t.test('it has no faults that axe-core finds, in light and dark, wide and narrow', async (t) => {
    for (const [name, options] of [
      ['wide', { viewport: { width: 1_200, height: 900 } }],
      ['narrow', { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2 }],
    ] as const) {
      const page = await newPage(browser, options);
      await page.goto(service.edgeOperators);
      await page.locator('#slowest').getByRole('row').first().waitFor();
      await page.locator('#takedowns').getByText('deleted').waitFor();
      for (const colorScheme of ['light', 'dark'] as const) {
        await page.emulateMedia({ colorScheme });
        await isAccessible(t, page, `${name}, ${colorScheme}`);
        await keepPicture(page, `edge-${name}-${colorScheme}`);
      }
      const reached = await reachedByKeyboard(page, 15);
      for (const button of ['Explain', 'Use it']) t.ok(reached.includes(button), button);
    }
  });

  await t.test('a page of another site shows a private picture and its thumbnail with signed links', async (t) => {
    const id = await upload(service, token);
    const { original, thumb } = await linksTo(service, token, id);
    const html = `<img id="a" src="${original}"><img id="b" src="${thumb}"><img id="c" src="${service.edge}/v1/media/${id}">`;
    const { page } = await openPage(browser);
    await page.goto(await openSite(t, html), { waitUntil: 'load' });
    const widths = await page.$$eval('img', (images) =>
      images.map((image) => (image as unknown as { naturalWidth: number }).naturalWidth),
    );
    t.equal(widths[0], 640, 'the original');
    t.equal(widths[1], 320, 'its thumbnail');
    t.equal(widths[2], 0, 'nothing without a signed link');
  });
});

let seed = 100;

/** Uploads a private picture of 640 pixels and waits for its thumbnail. */
async function upload(service: Service, token: string): Promise<string> {
  seed += 1;
  const id = await uploadTo(service, token, 'image/jpeg', await makeJpeg(seed, 640, 480));
  for (let left = 100; left > 0; left -= 1) {
    if (
      (await sendRequest(`${service.origin}/v1/media/${id}/thumb`, { headers: { authorization: `Bearer ${token}` } }))
        .status === 200
    )
      break;
  }
  return id;
}

async function get(service: Service, path: string, token: string): Promise<void> {
  await sendRequest(`${service.edge}${path}`, { headers: { authorization: `Bearer ${token}` } });
}
