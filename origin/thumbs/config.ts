/** What an operator may say about thumbnails. */
import { choice, duration, flag, integer, list, section, size, text, type ValueOf } from '../../src/config/field.js';

const NAME = /^[a-z0-9][a-z0-9_-]{0,31}$/;

const variantSection = section('One size in which thumbnails are made.', {
  name: text({
    default: '',
    pattern: NAME,
    accepts: '1 to 32 of a–z, 0–9, _ and -',
    help: 'What this variant is called, here and in the records.',
  }),
  width: integer({ default: 320, min: 8, max: 4_096, help: 'Greatest width in pixels.' }),
  height: integer({
    default: 0,
    min: 0,
    max: 4_096,
    help: 'Greatest height in pixels; 0: as the picture has it, up to four times the width (with `cover`: the width).',
  }),
  fit: choice({
    default: 'inside',
    of: ['inside', 'cover'],
    help: '`inside` keeps the whole picture within width and height, `cover` crops it to their shape.',
  }),
});

const animationSection = section('When an animated GIF, WebP or APNG stays animated; beyond these it is a still.', {
  enabled: flag({ default: true, help: 'Whether thumbnails move at all.' }),
  framesMax: integer({ default: 120, min: 2, max: 10_000, help: 'Frames of the source.' }),
  pixelsMax: integer({
    default: 40_000_000,
    min: 1_000,
    max: 2_000_000_000,
    help: 'Width × height × frames of the source.',
  }),
  outputMaxBytes: size({ default: '2MB', min: 1_000, help: 'A thumbnail that would be larger is made as a still.' }),
});

const formatsSection = section('The formats that are made. A client gets the best one that its Accept allows.', {
  webp: section('WebP, for nearly every client; the only one that is animated.', {
    quality: integer({ default: 78, min: 1, max: 100, help: 'Quality.' }),
    effort: integer({ default: 2, min: 0, max: 6, help: 'CPU spent on making it small.' }),
  }),
  jpeg: section('JPEG, for clients without WebP, where the picture is opaque.', {
    quality: integer({ default: 80, min: 1, max: 100, help: 'Quality.' }),
  }),
  png: section('PNG, for clients without WebP, where the picture has transparency.', {
    compression: integer({ default: 6, min: 0, max: 9, help: 'zlib level.' }),
  }),
  avif: section('AVIF: smallest and by far the most expensive to make.', {
    enabled: flag({ default: false, help: 'Whether it is made beside the others.' }),
    quality: integer({ default: 50, min: 1, max: 100, help: 'Quality.' }),
    effort: integer({ default: 3, min: 0, max: 9, help: 'CPU spent on making it small.' }),
  }),
});

const childrenSection = section('The processes in which pictures are decoded, apart from the origin itself.', {
  count: integer({ default: 2, min: 1, max: 64, help: 'Processes at most; they start when there is work.' }),
  threads: integer({ default: 2, min: 1, max: 16, help: 'Threads that one process uses for one picture.' }),
  memoryMaxBytes: size({
    default: '512MiB',
    min: 2 ** 27,
    help: 'Memory that one picture may take, on top of what an idle process holds (60MiB to 80MiB). A process that takes more is killed and replaced.',
  }),
  timeLimitMs: duration({ default: '20s', min: 100, help: 'For one picture; beyond it the process is killed.' }),
  startLimitMs: duration({ default: '30s', min: 100, help: 'For a process to become ready.' }),
  jobsMax: integer({ default: 500, min: 1, help: 'Pictures after which a process is replaced.' }),
  idleMs: duration({ default: '60s', min: 100, help: 'A process without work for so long is ended.' }),
  niceness: integer({ default: 5, min: 0, max: 19, help: 'How far they step back for the origin when CPU is short.' }),
});

const queueSection = section('The durable queue of thumbnail jobs.', {
  leaseMs: duration({
    default: '60s',
    min: 200,
    help: 'A claimed job returns to the queue when nobody renews for so long.',
  }),
  attemptsMax: integer({ default: 3, min: 1, max: 100, help: 'Failed attempts after which a job is a dead letter.' }),
  backoffMs: duration({ default: '5s', min: 1, help: 'Wait after the first failure; doubled after each further one.' }),
  backoffMaxMs: duration({ default: '10m', min: 1, help: 'Longest wait after a failure.' }),
  pollMs: duration({ default: '30s', min: 10, help: 'How often the queue is looked at when nothing announces work.' }),
});

const videoSection = section(
  'Posters and durations of video and audio, and HEIC, through ffmpeg where it is installed.',
  {
    enabled: flag({ default: true, help: 'Whether ffmpeg is looked for and used.' }),
    ffmpeg: text({ default: 'ffmpeg', help: 'The ffmpeg program: a name on the PATH or an absolute path.' }),
    ffprobe: text({ default: 'ffprobe', help: 'The ffprobe program.' }),
    heifConvert: text({
      default: 'heif-convert',
      help: 'The heif-convert (or heif-dec) program of libheif, for HEIC.',
    }),
    sourceMaxBytes: size({ default: '1GB', min: 1_000, help: 'Larger media get neither poster nor duration.' }),
    timeLimitMs: duration({ default: '20s', min: 100, help: 'For one run of either.' }),
    memoryMaxBytes: size({ default: '1GiB', min: 2 ** 27, help: 'Memory of one run of either.' }),
    posterAtMs: duration({
      default: '1s',
      help: 'The instant that the poster shows; earlier in a shorter video, another one where all is of one colour.',
    }),
  },
);

export const thumbsSection = section('Thumbnails, and what is learnt of a picture while making them.', {
  enabled: flag({ default: true, help: 'Without it jobs are queued and wait for an origin that has it.' }),
  variants: list({
    default: [
      { name: '160', width: 160 },
      { name: '320', width: 320 },
      { name: '640', width: 640 },
      { name: '1280', width: 1_280 },
    ],
    of: variantSection,
    min: 1,
    max: 16,
    help: 'Sizes. A picture is never enlarged: variants beyond its own size are not made.',
  }),
  defaultVariant: text({ default: '320', help: 'The variant that a request without w and h gets.' }),
  formats: formatsSection,
  animation: animationSection,
  pixelsMax: integer({
    default: 50_000_000,
    min: 1_000,
    max: 2_000_000_000,
    help: 'Width × height × frames that are decoded at most, read from the header before anything is decoded.',
  }),
  sourceMaxBytes: size({ default: '100MB', min: 1_000, help: 'Pictures with more bytes get no thumbnail.' }),
  children: childrenSection,
  queue: queueSection,
  video: videoSection,
  waitMs: duration({ default: '2s', help: 'How long a request for a pending thumbnail waits before 202.' }),
  waitersMax: integer({ default: 1_000, min: 0, help: 'Requests that wait at once; further ones get 202 at once.' }),
});

export type ThumbsConfig = ValueOf<typeof thumbsSection>;
export type VariantConfig = ThumbsConfig['variants'][number];

/** What the fields alone cannot say: each fault with the key it belongs to. */
export function thumbsFaults(config: ThumbsConfig): readonly { readonly path: string; readonly message: string }[] {
  const names = config.variants.map(({ name }) => name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  return [
    ...(twice === undefined ? [] : [{ path: 'variants', message: `two variants are called ${twice}` }]),
    ...(names.includes(config.defaultVariant)
      ? []
      : [{ path: 'default_variant', message: `is none of the variants ${names.join(', ')}` }]),
  ];
}
