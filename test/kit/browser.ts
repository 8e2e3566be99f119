/** Chromium, and a page of another site, for tests in a real browser. */
import { existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core';
import type { Test } from 'tap';
import { member, sendRequest } from './http/request.js';
import type { Service } from './service.js';
import { HANGS_AFTER_MS } from './until.js';

const CHROMIUM = process.env['CHROMIUM'] ?? '/usr/bin/chromium';

/** For the options of a test: it is skipped where there is no Chromium. */
export const browserInstalled = { skip: existsSync(CHROMIUM) ? false : 'no Chromium on this machine' } as const;

/** `args`: more switches of Chromium, such as those for a camera that is none. */
export async function openBrowser(t: Test, args: readonly string[] = []): Promise<Browser> {
  const browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--disable-background-networking',
      '--disable-sync',
      ...args,
    ],
  });
  t.teardown(() => browser.close());
  return browser;
}

/** What a page is waited for may take its time on a busy machine. */
export async function newPage(browser: Browser, options: BrowserContextOptions = {}): Promise<Page> {
  const page = await browser.newPage(options);
  page.setDefaultTimeout(HANGS_AFTER_MS);
  return page;
}

export async function openPage(browser: Browser): Promise<{ readonly page: Page; readonly errors: readonly string[] }> {
  const page = await newPage(browser);
  return { page, errors: watchErrors(page) };
}

/** The errors of the page so far, and of its console. */
export function watchErrors(page: Page): readonly string[] {
  const errors: string[] = [];
  page.on('pageerror', (error) => errors.push(error.message));
  page.on('console', (message) => {
    if (message.type() === 'error') errors.push(message.text());
  });
  return errors;
}

/** Finds no fault with axe-core, and nothing that is wider than the window. */
export async function isAccessible(t: Test, page: Page, when: string): Promise<void> {
  // The page's own policy admits no script of a test: this way none is needed.
  await page.evaluate(readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8'));
  const found = await page.evaluate<string[]>(`axe.run().then(({ violations }) => violations.map(({ id, nodes }) =>
    id + ': ' + nodes.map(({ html, failureSummary }) => html + ' ' + failureSummary).join('; ')))`);
  t.same(found, [], when);
  const over = await page.evaluate<number>(`document.documentElement.scrollWidth - innerWidth`);
  t.ok(over <= 0, `${when}: nothing is wider than the window`);
}

/** The names of what is reached with the Tab key from here, in their order. */
export async function reachedByKeyboard(page: Page, presses: number): Promise<readonly string[]> {
  const reached: string[] = [];
  for (let press = 0; press < presses; press += 1) {
    await page.keyboard.press('Tab');
    const name = await page.evaluate<string>(
      `document.activeElement?.getAttribute('aria-label') || document.activeElement?.textContent || document.activeElement?.id || ''`,
    );
    reached.push(name.trim());
  }
  return reached;
}

/** With `SCREENSHOTS=FOLDER`, keeps what a page looks like. */
export async function keepPicture(page: Page, name: string): Promise<void> {
  const folder = process.env['SCREENSHOTS'];
  if (folder !== undefined) await page.screenshot({ path: join(folder, `${name}.png`), fullPage: true });
}

/** The address of a site that serves this page. */
export async function openSite(t: Test, html: string): Promise<string> {
  const site = createServer((_request, response) => {
    response.writeHead(200, { 'content-type': 'text/html' }).end(html);
  });
  await new Promise<void>((listening) => site.listen(0, '127.0.0.1', listening));
  t.teardown(() => {
    site.closeAllConnections();
    site.close();
  });
  return `http://127.0.0.1:${(site.address() as AddressInfo).port}/`;
}

/** Uploads through the edge and returns the id. */
export async function uploadTo(service: Service, token: string, type: string, body: Buffer): Promise<string> {
  const created = await sendRequest(`${service.edge}/v1/media`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': type },
    body,
  });
  return member(created, 'id');
}

export interface Links {
  readonly original: string;
  readonly thumb: string;
}

/** Signed links, with the address under which the edge is reached here. */
export async function linksTo(service: Service, token: string, id: string): Promise<Links> {
  const link = await sendRequest(`${service.edge}/v1/media/${id}/link`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}` },
  });
  const here = (name: string): string => member(link, name).replace(/^https?:\/\/[^/]+/, service.edge);
  return { original: here('url'), thumb: here('thumb_url') };
}
