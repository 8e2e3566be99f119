/** The settings for thumbnails. */
import { choice, duration, flag, integer, list, section, size, text, type ValueOf } from '../../src/config/field.js';

const NAME = /^[a-z0-9][a-z0-9_-]{0,31}$/;

const variantSection = section('One size in which thumbnails are made.', {
  name: text({
    default: '',
    pattern: NAME,
    accepts: '1 to 32 of a–z, 0–9, _ and -',
    help: 'Name of the variant, in this file and in the records.',
  }),
  width: integer({ default: 320, min: 8, max: 4_096, help: 'Largest width in pixels.' }),
  height: integer({
    default: 0,
    min: 0,
    max: 4_096,
    help: 'Largest height in pixels. 0: four times the width; with `cover`, the width.',
  }),
  fit: choice({
    default: 'inside',
    of: ['inside', 'cover'],
    help: '`inside` shows the whole picture within width and height. `cover` crops it to their shape.',
  }),
});

const animationSection = section(
  'When thumbnails of an animated GIF, WebP or APNG are animated. Beyond these limits they are stills.',
  {
    enabled: flag({ default: true, help: 'Whether thumbnails may be animated.' }),
    framesMax: integer({ default: 120, min: 2, max: 10_000, help: 'Frames of the source, at most.' }),
    pixelsMax: integer({
      default: 40_000_000,
      min: 1_000,
      max: 2_000_000_000,
      help: 'Width × height × frames of the source, at most.',
    }),
    outputMaxBytes: size({
      default: '2MB',
      min: 1_000,
      help: 'Size of an animated thumbnail, at most. A larger one is made as a still.',
    }),
  },
);

const formatsSection = section('The formats that are made. A client gets the best one that its Accept field allows.', {
  webp: section('WebP, for nearly every client. The only format with animations.', {
    quality: integer({ default: 78, min: 1, max: 100, help: 'Quality.' }),
    effort: integer({ default: 2, min: 0, max: 6, help: 'CPU time for a smaller file; higher takes longer.' }),
  }),
  jpeg: section('JPEG, for clients without WebP, if the picture has no transparency.', {
    quality: integer({ default: 80, min: 1, max: 100, help: 'Quality.' }),
  }),
  png: section('PNG, for clients without WebP, if the picture has transparency.', {
    compression: integer({ default: 6, min: 0, max: 9, help: 'Compression level of zlib.' }),
  }),
  avif: section('AVIF: the smallest files, and by far the most CPU time to make them.', {
    enabled: flag({ default: false, help: 'Whether AVIF is made too.' }),
    quality: integer({ default: 50, min: 1, max: 100, help: 'Quality.' }),
    effort: integer({ default: 3, min: 0, max: 9, help: 'CPU time for a smaller file; higher takes longer.' }),
  }),
});

const childrenSection = section('The child processes that decode pictures.', {
  count: integer({ default: 2, min: 1, max: 64, help: 'Processes, at most. They start when there is work.' }),
  readyMin: integer({
    default: 1,
    min: 0,
    max: 64,
    help: 'Processes that are kept ready without work, 60MiB to 80MiB each, so that the first picture after a pause does not wait for a start.',
  }),
  threads: integer({ default: 2, min: 1, max: 16, help: 'Threads that one process uses for one picture.' }),
  memoryMaxBytes: size({
    default: '512MiB',
    min: 2 ** 27,
    help: 'Memory that one picture may take, on top of what the process takes before its first picture (60MiB to 80MiB). A process that takes more is killed and replaced.',
  }),
  cpuLimitMs: duration({
    default: '30s',
    min: 100,
    help: 'Processor time for one picture, all threads together. A process that takes more is killed.',
  }),
  timeLimitMs: duration({
    default: '2m',
    min: 100,
    help: 'Time for one picture, long enough for a busy machine. A process that takes longer is killed, and the picture is tried again later, behind all others.',
  }),
  startLimitMs: duration({
    default: '30s',
    min: 100,
    help: 'Time for a process to become ready. A process that takes longer is killed.',
  }),
  jobsMax: integer({ default: 500, min: 1, help: 'Pictures after which a process is replaced.' }),
  idleMs: duration({ default: '60s', min: 100, help: 'How long a process without work is kept.' }),
  niceness: integer({
    default: 5,
    min: 0,
    max: 19,
    help: 'Niceness of the processes: higher leaves more CPU time to the origin.',
  }),
});

const queueSection = section('The durable queue of thumbnail jobs.', {
  leaseMs: duration({
    default: '60s',
    min: 200,
    help: 'How long a claimed job is leased. Without a renewal it then returns to the queue.',
  }),
  attemptsMax: integer({
    default: 3,
    min: 1,
    max: 100,
    help: 'Failed attempts after which a job becomes a dead letter.',
  }),
  backoffMs: duration({
    default: '5s',
    min: 1,
    help: 'Wait after the first failure. It doubles after each further failure.',
  }),
  backoffMaxMs: duration({ default: '10m', min: 1, help: 'Longest wait after a failure.' }),
  pollMs: duration({ default: '30s', min: 10, help: 'How often the queue is read when no new job was reported.' }),
});

const videoSection = section(
  'Posters and durations of video and audio, and HEIC pictures, made by ffmpeg and heif-convert if they are installed.',
  {
    enabled: flag({ default: true, help: 'Whether these programs are used.' }),
    ffmpeg: text({ default: 'ffmpeg', help: 'The ffmpeg program: a name on the PATH or an absolute path.' }),
    ffprobe: text({ default: 'ffprobe', help: 'The ffprobe program.' }),
    heifConvert: text({
      default: 'heif-convert',
      help: 'The heif-convert (or heif-dec) program of libheif, for HEIC.',
    }),
    sourceMaxBytes: size({
      default: '1GB',
      min: 1_000,
      help: 'Media larger than this get neither poster nor duration.',
    }),
    cpuLimitMs: duration({
      default: '30s',
      min: 1_000,
      help: 'Processor time for one run of a program, all threads together, in whole seconds. A program that takes more is killed.',
    }),
    timeLimitMs: duration({
      default: '2m',
      min: 100,
      help: 'Time for one run of a program, long enough for a busy machine. A program that takes longer is killed, and the job is tried again later, behind all others.',
    }),
    memoryMaxBytes: size({ default: '1GiB', min: 2 ** 27, help: 'Memory of one run of a program.' }),
    posterAtMs: duration({
      default: '1s',
      help: 'The instant that the poster shows. In a short video it is earlier; if the frame has a single colour, another one is used.',
    }),
  },
);

export const thumbsSection = section('Thumbnails, and the facts about a picture that are found while making them.', {
  enabled: flag({
    default: true,
    help: 'Whether this origin makes thumbnails. Otherwise jobs are queued, and wait until it does.',
  }),
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
    help: 'Sizes. A picture is never enlarged: variants larger than the picture are not made.',
  }),
  defaultVariant: text({ default: '320', help: 'The variant for requests without `w` and `h`.' }),
  formats: formatsSection,
  animation: animationSection,
  pixelsMax: integer({
    default: 50_000_000,
    min: 1_000,
    max: 2_000_000_000,
    help: 'Width × height of a source, at most; for an animation, times its frames, or it is made a still. They are read from the header before anything is decoded.',
  }),
  sourceMaxBytes: size({ default: '100MB', min: 1_000, help: 'Pictures larger than this get no thumbnail.' }),
  scansMax: integer({
    default: 64,
    min: 1,
    max: 100_000,
    help: 'Scans of a JPEG, at most. Encoders make up to twenty; a decoder goes through the whole picture for each.',
  }),
  framesMax: integer({
    default: 10_000,
    min: 1,
    max: 1_000_000,
    help: 'Frames of an animation, at most. One with more gets no thumbnail at all.',
  }),
  children: childrenSection,
  queue: queueSection,
  video: videoSection,
  uploadWaitMs: duration({
    default: '250ms',
    max: 10_000,
    help: 'How long the answer to an upload of a picture waits for its thumbhash, if a process is free to make it. The processor time is that of the thumbnails, which are made anyway. 0s: it does not wait.',
  }),
  waitMs: duration({
    default: '2s',
    help: 'How long a request for a pending thumbnail waits before it is answered with 202.',
  }),
  pictureWaitMs: duration({
    default: '20s',
    max: 60_000,
    help: 'The same for a request of a picture element (Sec-Fetch-Dest: image, or Accept with pictures alone), which is then answered with a placeholder picture. Keep it below edge.upstream.head_within.',
  }),
  waitersMax: integer({
    default: 1_000,
    min: 0,
    help: 'Requests that wait at the same time, at most. Further requests are answered with 202 at once.',
  }),
});

export type ThumbsConfig = ValueOf<typeof thumbsSection>;
export type VariantConfig = ThumbsConfig['variants'][number];

/** Faults that only several settings together have, each with its key. */
export function thumbsFaults(config: ThumbsConfig): readonly { readonly path: string; readonly message: string }[] {
  const names = config.variants.map(({ name }) => name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  return [
    ...(twice === undefined ? [] : [{ path: 'variants', message: `two variants have the name ${twice}` }]),
    ...(names.includes(config.defaultVariant)
      ? []
      : [{ path: 'default_variant', message: `is none of the variants ${names.join(', ')}` }]),
  ];
}
