/**
 * In a real browser: the page for people, as `npm start` serves it, with its client library. `SCREENSHOTS=FOLDER`
 * keeps what it looked like.
 */
import type { BrowserContextOptions, Page } from 'playwright-core';
import sharp from 'sharp';
import t from 'tap';
import {
  browserInstalled,
  isAccessible,
  keepPicture,
  openBrowser,
  reachedByKeyboard,
  watchErrors,
} from '../kit/browser.js';
import { openRelay } from '../kit/http/relay.js';
import { largePng } from '../kit/media.js';
import { startService } from '../kit/service.js';
import { FILE_HANGS_AFTER_MS, HANGS_AFTER_MS, untilAsync } from '../kit/until.js';

t.setTimeout(FILE_HANGS_AFTER_MS);

const FAKE_CAMERA = ['--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'];

void t.test('the chat in a browser', browserInstalled, async (t) => {
  const service = await startService(t.testdir());
  t.teardown(() => service.stop());
  const browser = await openBrowser(t, FAKE_CAMERA);
  const open = async (name: string, options: BrowserContextOptions = {}) => {
    const context = await browser.newContext({ viewport: { width: 900, height: 800 }, ...options });
    const page = await context.newPage();
    const errors = watchErrors(page);
    await page.goto(`${service.edge}/?as=${name}`);
    return { page, errors };
  };
  const { page, errors } = await open('ada');
  const other = (await open('grace', { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2 })).page;

  await t.test('a picture that one drops is in the other window, as its preview and then as a thumbnail', async (t) => {
    await page.getByRole('textbox', { name: 'Message' }).fill('The first roses are out.');
    await page.keyboard.press('Enter');
    await drop(page, 'roses.jpg', 'image/jpeg', await garden());
    const shown = other.getByRole('img', { name: 'roses.jpg' });
    await shown.waitFor();
    await untilAsync('the thumbnail', () => shown.evaluate((image: Shown) => image.naturalWidth > 0));
    t.match(await shown.getAttribute('srcset'), /sig=[^ ]+&w=\d+ 1x, .*&w=\d+ 2x/);
    await untilAsync('the preview', () => shown.evaluate((image: Shown) => image.style.backgroundImage !== ''));
    t.match(await shown.evaluate((image: Shown) => image.style.backgroundImage), /^url\("data:image\/bmp/);
    await other.locator('summary', { hasText: '· hit' }).first().waitFor({ timeout: HANGS_AFTER_MS });
    await other.getByText('Members only').first().waitFor();
    await other.getByText('The first roses are out.').waitFor();
    await other.getByRole('textbox', { name: 'Message' }).fill('Lovely! Is that the hill behind the school?');
    await other.keyboard.press('Enter');
    await page.getByText('Lovely!').waitFor();
  });

  await t.test('a large file is paused, continued, and sent', async (t) => {
    await page.getByRole('radio', { name: 'Anyone' }).check();
    // The edge and the origin are near: the page itself has to pause, as soon as something was sent.
    await page.evaluate(`new MutationObserver((changes, self) => {
      if (!(document.querySelector('#uploads progress')?.value > 0.2)) return;
      self.disconnect();
      document.querySelector('#uploads button').click();
    }).observe(document.getElementById('uploads'), { childList: true, subtree: true, attributes: true })`);
    await page.getByLabel('Attach files').setInputFiles({
      name: 'plan.png',
      mimeType: 'image/png',
      buffer: largePng(5, 9_500_000),
    });
    await page.getByText('paused', { exact: true }).waitFor();
    await page.getByRole('progressbar', { name: 'plan.png' }).waitFor();
    await isAccessible(t, page, 'with an upload');
    await keepPicture(page, 'chat');
    await page.getByRole('button', { name: 'Continue plan.png' }).click();
    await other.getByRole('img', { name: 'plan.png' }).waitFor();
    await page.getByRole('progressbar').waitFor({ state: 'detached' });
    t.equal(await other.locator('.seen', { hasText: 'Anyone' }).count(), 1);
  });

  await t.test('an upload goes on where it was after its connection was cut', async (t) => {
    const relay = await openRelay(() => Number(new URL(service.edge).port));
    t.teardown(() => relay.close());
    const far = await (await browser.newContext()).newPage();
    let cuts = 0;
    let failed = 0;
    far.on('request', (request) => {
      if (request.method() !== 'PATCH' || cuts === 2) return;
      cuts += 1;
      // Chromium sends a request once more by itself: the new connection must not work either.
      relay.set('refuse');
      relay.cut();
    });
    far.on('requestfailed', (request) => {
      if (request.method() !== 'PATCH') return;
      failed += 1;
      relay.set('pass');
    });
    await far.goto(`${relay.url}/?as=lise`);
    await far.getByLabel('Attach files').setInputFiles({
      name: 'far.png',
      mimeType: 'image/png',
      buffer: largePng(6, 9_000_000),
    });
    await page.getByRole('img', { name: 'far.png' }).waitFor({ timeout: HANGS_AFTER_MS });
    t.equal(cuts, 2);
    t.ok(failed >= 1, `${failed} requests broke`);
    await far.context().close();
  });

  await t.test('pictures, films and voice messages are recorded and shown, and films seek', async (t) => {
    // A camera that is slow to begin: what can be pressed before it has begun must not be lost.
    await page.evaluate(`{
      const { play } = HTMLMediaElement.prototype;
      HTMLMediaElement.prototype.play = async function () {
        await new Promise((resolve) => setTimeout(resolve, 700));
        return play.call(this);
      };
    }`);
    await page.getByRole('button', { name: 'Picture', exact: true }).click();
    await page.getByRole('button', { name: 'Take the picture' }).click();
    await other.getByRole('img', { name: 'picture.jpeg' }).waitFor();
    await page.getByRole('button', { name: 'Film', exact: true }).click();
    await page.getByText('0:02').waitFor();
    await isAccessible(t, page, 'while it records');
    await page.getByRole('button', { name: 'Stop and send' }).click();
    const film = other.locator('video.picture');
    await untilAsync(
      'the film',
      async () => (await film.count()) === 1 && film.evaluate((video: Shown) => video.readyState > 0),
    );
    await film.evaluate((video: Shown) => {
      video.currentTime = 1;
    });
    await untilAsync('the place in the film', () =>
      film.evaluate((video: Shown) => !video.seeking && video.currentTime > 0.5 && video.readyState > 1),
    );
    await page.getByRole('button', { name: 'Voice', exact: true }).click();
    await page.getByText('0:01').waitFor();
    await page.getByRole('button', { name: 'Stop and send' }).click();
    await other.locator('audio').waitFor();
  });

  await t.test('it has no faults that axe-core finds, in light and dark, wide and narrow', async (t) => {
    for (const colorScheme of ['light', 'dark'] as const) {
      for (const [name, each] of [
        ['wide', page],
        ['narrow', other],
      ] as const) {
        await each.emulateMedia({ colorScheme });
        await isAccessible(t, each, `${name}, ${colorScheme}`);
        await keepPicture(each, `chat-${name}-${colorScheme}`);
      }
    }
    await page.emulateMedia({ colorScheme: 'light' });
  });

  await t.test('everything is reached with the keyboard', async (t) => {
    await page.getByRole('textbox', { name: 'Message' }).focus();
    const reached = await reachedByKeyboard(page, 60);
    for (const name of ['Send', 'Picture', 'Film', 'Voice', 'Take down roses.jpg']) {
      t.ok(reached.includes(name), name);
    }
  });

  await t.test('what one takes down goes from the other window', async (t) => {
    const item = other.getByRole('listitem').filter({ has: other.getByRole('img', { name: 'roses.jpg' }) });
    await item.waitFor();
    await page.getByRole('button', { name: 'Take down roses.jpg' }).click();
    await other.locator('summary', { hasText: '410 deleted' }).waitFor();
    await other.getByText('The media was deleted.').waitFor();
    t.equal(await other.getByRole('img', { name: 'roses.jpg' }).count(), 0);
    await keepPicture(other, 'chat-taken-down');
  });

  t.same(
    errors.filter((line) => !/status of 4(?:04|10)|ERR_ABORTED/.test(line)),
    [],
    'nothing in the console but that the media are gone',
  );
  // The folder of the test is removed before its teardown.
  await browser.close();
  await service.stop();
});

/** What the tests use of elements in a page. */
interface Shown {
  readonly naturalWidth: number;
  readonly readyState: number;
  readonly seeking: boolean;
  readonly style: { readonly backgroundImage: string };
  currentTime: number;
}

async function drop(page: Page, name: string, type: string, bytes: Buffer): Promise<void> {
  await page.evaluate(
    `(({ name, type, base64 }) => {
      const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File([bytes], name, { type }));
      document.dispatchEvent(new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true }));
    })(${JSON.stringify({ name, type, base64: bytes.toString('base64') })})`,
  );
}

/** A picture that people would send: hills, a sky with a sun, and roses. */
async function garden(): Promise<Buffer> {
  const roses = Array.from({ length: 70 }, (_, at) => {
    const [x, y] = [(at * 379) % 1_600, 860 + ((at * 211) % 330)];
    const red = ['#c8283f', '#e0556a', '#f2b8b0', '#9c1730'][at % 4];
    const size = 16 + ((at * 13) % 22);
    return `<circle cx="${x}" cy="${y}" r="${size}" fill="${red}"/><circle cx="${x - 4}" cy="${y - 4}" r="${size / 2}" fill="#fff" opacity=".22"/>`;
  });
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="1600" height="1200">
    <defs><linearGradient id="s" x2="0" y2="1"><stop stop-color="#6fb4e8"/><stop offset="1" stop-color="#fde6c4"/></linearGradient></defs>
    <rect width="1600" height="1200" fill="url(#s)"/><circle cx="1230" cy="300" r="110" fill="#fff3c9"/>
    <path d="M0 720 Q400 480 820 690 T1600 600 V1200 H0Z" fill="#7fa98a"/>
    <path d="M0 830 Q500 640 980 820 T1600 740 V1200 H0Z" fill="#4d8560"/>
    <path d="M0 900 Q700 800 1600 890 V1200 H0Z" fill="#2d6243"/>${roses.join('')}</svg>`;
  return await sharp(Buffer.from(svg)).jpeg({ quality: 88 }).toBuffer();
}
