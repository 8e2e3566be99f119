/** In a real browser: the page for operators, and signed links in a page of another site. */
import { existsSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type Browser, chromium } from 'playwright-core';
import t from 'tap';
import { member, sendRequest } from '../kit/http/request.js';
import { makeJpeg } from '../kit/pictures.js';
import { type Service, startService } from '../kit/service.js';

const CHROMIUM = process.env['CHROMIUM'] ?? '/usr/bin/chromium';

t.setTimeout(120_000);

void t.test('in a browser', { skip: existsSync(CHROMIUM) ? false : 'no Chromium on this machine' }, async (t) => {
  const service = await startService(t.testdir());
  t.teardown(() => service.stop());
  const browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-background-networking', '--disable-sync'],
  });
  t.teardown(() => browser.close());
  const token = await service.token();

  await t.test('the page for operators shows live figures of the edge, without an error in the console', async (t) => {
    const id = await upload(service, token);
    for (let times = 0; times < 3; times += 1) await get(service, `/v1/media/${id}`, token);
    const { page, errors } = await open(browser);
    await page.goto(service.edgeOperators);
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
    t.same(errors, []);
  });

  await t.test('a page of another site shows a private picture and its thumbnail with signed links', async (t) => {
    const id = await upload(service, token);
    const link = await sendRequest(`${service.edge}/v1/media/${id}/link`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}` },
    });
    const here = (url: string): string => url.replace(/^https?:\/\/[^/]+/, service.edge);
    const html = `<img id="a" src="${here(member(link, 'url'))}"><img id="b" src="${here(member(link, 'thumb_url'))}"><img id="c" src="${service.edge}/v1/media/${id}">`;
    const site = createServer((_request, response) => {
      response.writeHead(200, { 'content-type': 'text/html' }).end(html);
    });
    await new Promise<void>((listening) => site.listen(0, '127.0.0.1', listening));
    t.teardown(() => {
      site.closeAllConnections();
      site.close();
    });
    const { page } = await open(browser);
    await page.goto(`http://127.0.0.1:${(site.address() as AddressInfo).port}/`, { waitUntil: 'load' });
    const widths = await page.$$eval('img', (images) =>
      images.map((image) => (image as unknown as { naturalWidth: number }).naturalWidth),
    );
    t.equal(widths[0], 640, 'the original');
    t.equal(widths[1], 320, 'its thumbnail');
    t.equal(widths[2], 0, 'nothing without a signed link');
  });
});

async function open(browser: Browser) {
  const page = await browser.newPage();
  const errors: string[] = [];
  page.on('pageerror', (error) => errors.push(error.message));
  page.on('console', (message) => {
    if (message.type() === 'error') errors.push(message.text());
  });
  return { page, errors };
}

let seed = 100;

/** Uploads a private picture of 640 pixels and waits for its thumbnail. */
async function upload(service: Service, token: string): Promise<string> {
  seed += 1;
  const created = await sendRequest(`${service.edge}/v1/media`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'image/jpeg' },
    body: await makeJpeg(seed, 640, 480),
  });
  const id = member(created, 'id');
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
