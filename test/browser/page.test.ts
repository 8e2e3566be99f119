/** In a real browser: the page for operators, and signed links in a page of another site. */
import t from 'tap';
import { browserInstalled, linksTo, openBrowser, openPage, openSite, uploadTo } from '../kit/browser.js';
import { sendRequest } from '../kit/http/request.js';
import { makeJpeg } from '../kit/pictures.js';
import { type Service, startService } from '../kit/service.js';

t.setTimeout(120_000);

void t.test('in a browser', browserInstalled, async (t) => {
  const service = await startService(t.testdir());
  t.teardown(() => service.stop());
  const browser = await openBrowser(t);
  const token = await service.token();

  await t.test('the page for operators shows live figures of the edge, without an error in the console', async (t) => {
    const id = await upload(service, token);
    for (let times = 0; times < 3; times += 1) await get(service, `/v1/media/${id}`, token);
    const { page, errors } = await openPage(browser);
    await page.goto(service.edgeOperators);
    // The edge may have been started a moment ago. Opened again, the page has what it knows by then.
    await page.locator('#begins').waitFor({ state: 'hidden', timeout: 15_000 });
    await page.reload();
    await page.getByText('Hit in memory').waitFor();
    const seconds = ((await page.locator('#line').getAttribute('d')) ?? '').split('L').length;
    t.ok(seconds > 1, `it starts with the last ${seconds} seconds`);
    t.notOk(await page.locator('#begins').isVisible());
    t.match(
      await page.getByRole('heading', { name: /Requests a second/ }).textContent(),
      /· [\d.]+ now, [\d.]+ at most$/,
    );
    const row = page.getByRole('row', { name: /Hit in memory/ });
    t.match(await row.textContent(), /Hit in memory\s*2/);
    await get(service, `/v1/media/${id}`, token);
    await row.getByText('3', { exact: true }).waitFor({ timeout: 15_000 });
    await page.getByRole('textbox', { name: /A URL or a path/ }).fill(`${service.edge}/v1/media/${id}`);
    await page.getByRole('button', { name: 'Explain' }).click();
    await page.getByText(/Refused \(401\): it is private/).waitFor({ timeout: 15_000 });
    t.match(await page.getByRole('status').textContent(), /Stored: in the memory tier, 200, image\/jpeg/);
    t.same(errors, []);
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
