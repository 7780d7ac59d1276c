/** Every kind of picture that can lie in a folder of pictures: sound ones in all their dress, and what only has a picture's name. */
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import type { Colour } from './corpus.js';
import { claimingPng, hugePng, noise, plain, put } from './corpus.js';

const ORANGE: Colour = [230, 120, 20];
const GREEN: Colour = [10, 200, 60];

/** A picture that decodes, and its colour, met within `error`. */
export interface Sound {
  readonly name: string;
  readonly colour: Colour;
  readonly error: number;
}

/** What cannot be used, and the reason that is given. */
export interface Unsound {
  readonly name: string;
  readonly reason: RegExp;
}

/** Puts sound pictures into a folder. */
export async function putSound(folder: string): Promise<Sound[]> {
  const sound: Sound[] = [];
  const add = async (name: string, bytes: Promise<Buffer>, colour: Colour = ORANGE, error = 2): Promise<void> => {
    put(join(folder, name), await bytes);
    sound.push({ name, colour, error });
  };
  const frames = await Promise.all([ORANGE, GREEN].map((colour) => plain(24, 24, colour).png().toBuffer()));
  const animated = () => sharp(frames, { join: { animated: true } });
  const image = () => plain(40, 30, ORANGE);
  await add('plain.jpg', image().jpeg({ quality: 98 }).toBuffer(), ORANGE, 4);
  await add('progressive.jpg', image().jpeg({ quality: 98, progressive: true }).toBuffer(), ORANGE, 4);
  await add('cmyk.jpg', image().toColourspace('cmyk').jpeg({ quality: 98 }).toBuffer(), ORANGE, 40);
  await add('deep.png', image().toColourspace('rgb16').png().toBuffer());
  await add('moving.gif', animated().gif().toBuffer());
  await add('moving.webp', animated().webp({ lossless: true }).toBuffer());
  await add('a PNG.jpg', image().png().toBuffer());
  await add('a WebP.png', image().webp({ lossless: true }).toBuffer());
  await add('grey.png', plain(20, 20, [90, 90, 90]).toColourspace('b-w').png().toBuffer(), [90, 90, 90]);
  await add(
    'clear.png',
    sharp({ create: { width: 9, height: 9, channels: 4, background: '#0000' } })
      .png()
      .toBuffer(),
    [255, 255, 255],
  );
  await add('turned.jpg', image().withMetadata({ orientation: 8 }).jpeg({ quality: 98 }).toBuffer(), ORANGE, 4);
  await add('one pixel.png', plain(1, 1, GREEN).png().toBuffer(), GREEN);
  return sound;
}

/** Puts what is no picture into a folder; without the file that its owner alone may not read if `root` asks, who may read it. */
export async function putUnsound(folder: string, root: boolean): Promise<Unsound[]> {
  const unsound: Unsound[] = [];
  const add = (name: string, reason: RegExp, bytes?: string | Uint8Array): void => {
    if (bytes !== undefined) put(join(folder, name), bytes);
    unsound.push({ name, reason });
  };
  for (const format of ['jpeg', 'png', 'webp', 'gif'] as const) {
    const whole = await noise(40, 40).toFormat(format).toBuffer();
    add(`cut.${format}`, /the file is cut off or damaged/, whole.subarray(0, Math.floor(whole.length * 0.6)));
    add(`head.${format}`, /cut off or damaged|cannot be decoded/, whole.subarray(0, 16));
  }
  const wrong = await noise(40, 40).png().toBuffer();
  wrong[wrong.length >> 1]! ^= 1;
  add('wrong checksum.png', /the file is cut off or damaged/, wrong);
  add('bomb.png', /20000 x 20000 is 400 megapixels, and the limit is 100/, hugePng(20_000, 20_000));
  add('claim.png', /60000 x 60000 is 3600 megapixels/, claimingPng(60_000, 60_000));
  add('thin.png', /100000000 x 1 has a side of more than 65535 pixels/, claimingPng(100_000_000, 1));
  add('largest.png', /cannot be decoded/, claimingPng(2 ** 31 - 1, 2 ** 31 - 1));
  add('no width.png', /cannot be decoded/, claimingPng(0, 5));
  add('hollow.png', /cut off or damaged/, claimingPng(90, 90));
  add('empty.jpg', /the file is empty \(0 bytes\)/, '');
  add('text.jpg', /not a JPEG, PNG, WebP or GIF picture; it begins with "dear diary"/, 'dear diary');
  add('memory.jpg', /it begins with "out of memory"/, 'out of memory');
  add('zeros.png', /it begins with bytes 0000000000000000/, new Uint8Array(500));
  add('drawing.png', /begins with "<svg/, '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>');
  add('page.gif', /begins with "<!DOCTYPE html/, '<!DOCTYPE html><title>404</title>');

  put(join(folder, 'folder.jpg', 'inside.png'), await plain(4, 4, GREEN).png().toBuffer());
  add('folder.jpg', /it is a folder/);
  mkdirSync(join(folder, 'folder.png'));
  add('folder.png', /it is a folder/);
  symlinkSync('nowhere', join(folder, 'gone.jpg'));
  add('gone.jpg', /no such file/);
  symlinkSync('circle.jpg', join(folder, 'circle.jpg'));
  add('circle.jpg', /symbolic links lead round in a circle/);
  execFileSync('mkfifo', [join(folder, 'pipe.jpg')]);
  add('pipe.jpg', /it is a pipe or a device/);
  if (!root) {
    add('locked.jpg', /permission denied/, await plain(4, 4, GREEN).png().toBuffer());
    chmodSync(join(folder, 'locked.jpg'), 0);
  }
  return unsound;
}
