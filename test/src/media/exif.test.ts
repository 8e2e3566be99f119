/** The orientation in an EXIF block, byte by byte. */
import t from 'tap';
import { readOrientation } from '../../../src/media/exif.js';

const bytes = (hex: string): Buffer => Buffer.from(hex.replaceAll(' ', ''), 'hex');
const WIDTH = '0100 0003 00000001 00400000';
const ORIENTATION = (value: string): string => `0112 0003 00000001 ${value} 0000`;

void t.test('the orientation is that of the first directory, in either byte order', async (t) => {
  for (let value = 1; value <= 8; value += 1) {
    const digits = value.toString(16).padStart(4, '0');
    t.equal(readOrientation(bytes(`4d4d 002a 00000008 0001 ${ORIENTATION(digits)} 00000000`)), value);
    t.equal(readOrientation(bytes(`4949 2a00 08000000 0100 1201 0300 01000000 0${value}00 0000 00000000`)), value);
  }
  t.equal(readOrientation(bytes(`4d4d 002a 00000008 0002 ${WIDTH} ${ORIENTATION('0006')}`)), 6, 'the second entry');
  t.equal(readOrientation(bytes(`4d4d 002a 0000000a ffff 0001 ${ORIENTATION('0006')}`)), 6, 'a directory further on');
  t.equal(
    readOrientation(bytes(`4d4d 002a 00000008 ffff ${ORIENTATION('0003')}`)),
    3,
    'more entries claimed than there are',
  );
});

void t.test('an EXIF block without a valid orientation has none', async (t) => {
  for (const [name, hex] of [
    ['nothing', ''],
    ['a head that is cut', '4d4d002a000000'],
    ['no directory', '4d4d002a00000008'],
    ['half the number of entries', '4d4d002a0000000800'],
    ['a directory beyond the end', `4d4d002a 000000ff 0001 ${ORIENTATION('0006')}`],
    ['another byte order', `4d49 002a 00000008 0001 ${ORIENTATION('0006')}`],
    ['another mark', `4d4d 002b 00000008 0001 ${ORIENTATION('0006')}`],
    ['an entry that is cut', `4d4d 002a 00000008 0001 0112 0003 00000001 0006 00`],
    ['no entry', `4d4d 002a 00000008 0000 ${ORIENTATION('0006')}`],
    ['the entry behind the last one', `4d4d 002a 00000008 0001 ${WIDTH} ${ORIENTATION('0006')}`],
    ['a value of 0', `4d4d 002a 00000008 0001 ${ORIENTATION('0000')}`],
    ['a value of 9', `4d4d 002a 00000008 0001 ${ORIENTATION('0009')}`],
    ['a first value that is wrong', `4d4d 002a 00000008 0002 ${ORIENTATION('0009')} ${ORIENTATION('0006')}`],
  ] as const) {
    t.equal(readOrientation(bytes(hex)), undefined, name);
  }
});
