/**
 * Text for pictures, as SVG. Letters are drawn by strokes of our own: a freshly installed machine or a container often has no font, and text
 * then vanishes from an SVG without an error. A text with a character that we have no strokes for is left to the machine's fonts.
 */

/**
 * Strokes by character: polylines of points, each two digits x y, in a grid whose capitals reach from y = 0 to the baseline y = 7; small
 * letters begin at y = 2, tails end at y = 9.
 */
const GLYPHS: Readonly<Record<string, string>> = {
  a: '0312324347 44140506173746',
  b: '0007 0312324346371706',
  c: '4332120306173746',
  d: '4047 4332120306173746',
  e: '04444332120306173746',
  f: '30201117 0232',
  g: '4248391908 4332120306173746',
  h: '0007 0312324347',
  i: '0207 0000',
  j: '121809 1010',
  k: '0007 4206 2447',
  l: '000617',
  m: '0207 0312223337 3342526367',
  n: '0207 0312324347',
  o: '123243463717060312',
  p: '0209 0312324346371706',
  q: '4249 4332120306173746',
  r: '0207 04122232',
  s: '43321203143546371706',
  t: '10162737 0232',
  u: '0206173746 4247',
  v: '022742',
  w: '0217325762',
  x: '0247 4207',
  y: '0227 421909',
  z: '02420747',
  A: '0702204247 0444',
  B: '00073746443303 3342413000',
  C: '4130100106173746',
  D: '00204245270700',
  E: '40000747 0333',
  F: '400007 0333',
  G: '41301001061737464424',
  H: '0007 4047 0343',
  I: '0007',
  J: '3036271706',
  K: '0007 4004 1347',
  L: '000747',
  M: '0700336067',
  N: '07004740',
  O: '104051564717060110',
  P: '07003041433404',
  Q: '104051564717060110 3558',
  R: '07003041433404 2447',
  S: '413010010213344546371706',
  T: '0040 2027',
  U: '000617374640',
  V: '002740',
  W: '0017325760',
  X: '0047 4007',
  Y: '002340 2327',
  Z: '00400747',
  0: '103041463717060110',
  1: '022027',
  2: '01103041420747',
  3: '01103041423323 334446371706',
  4: '37300545',
  5: '400003334446371706',
  6: '413010010617374644331304',
  7: '004017',
  8: '13020110304142331304061737464433',
  9: '061737464130100103143443',
  ' ': '',
  '-': '0424',
  '–': '0444',
  _: '0848',
  '.': '0707',
  ',': '1709',
  ':': '0303 0707',
  ';': '1313 1709',
  '/': '3007',
  '(': '10020517',
  ')': '00121507',
  '[': '10000717',
  ']': '00101707',
  '+': '2327 0545',
  '=': '0343 0646',
  '<': '420547',
  '>': '024507',
  '&': '471211203132050617273745',
  "'": '0002',
  '"': '0002 2022',
  '!': '0004 0707',
  '?': '01103041422425 2727',
  '#': '1017 3037 0242 0545',
  '%': '4007 0010110100 3646473736',
  '*': '2125 0244 0442',
  '·': '0404',
  '…': '0707 2727 4747',
};

const SPACE = 3;
const BETWEEN = 2;
/** Units from the top of a capital to the baseline. */
const CAPITAL = 7;

export interface Text {
  readonly text: string;
  readonly x: number;
  /** Of the baseline. */
  readonly y: number;
  /** Height of a capital in pixels. */
  readonly height: number;
  readonly colour: string;
}

/** An SVG of the given size with texts on nothing, to be laid over a picture. */
export function lettering(width: number, height: number, texts: readonly Text[]): Buffer {
  const body = texts.map(draw).join('');
  return Buffer.from(`<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}">${body}</svg>`);
}

/** Pixels from the start of a text to its end; an estimate where the machine's fonts draw it. */
export function textWidth(text: string, height: number): number {
  let units = -BETWEEN;
  for (const character of text) units += advance(GLYPHS[character] ?? GLYPHS.o!);
  return (Math.max(0, units) * height) / CAPITAL;
}

/** The text, shortened by an ellipsis if it is wider than `most` pixels. */
export function fitText(text: string, height: number, most: number): string {
  if (textWidth(text, height) <= most) return text;
  const characters = [...text];
  while (characters.length > 1 && textWidth(`${characters.join('')}…`, height) > most) characters.pop();
  return `${characters.join('').trimEnd()}…`;
}

function draw({ text, x, y, height, colour }: Text): string {
  if ([...text].some((character) => GLYPHS[character] === undefined)) {
    const size = (height * 1.37).toFixed(1); // of common fonts: capitals are 0.73 of their size
    return `<text x="${x}" y="${y}" font-family="sans-serif" font-size="${size}" fill="${colour}">${escapeXml(text)}</text>`;
  }
  let left = 0;
  let path = '';
  for (const character of text) {
    const glyph = GLYPHS[character]!;
    for (const stroke of glyph.split(' ')) path += strokePath(stroke, left);
    left += advance(glyph);
  }
  const unit = height / CAPITAL;
  const place = `translate(${x} ${y - height}) scale(${unit.toFixed(4)})`;
  return `<path transform="${place}" d="${path}" fill="none" stroke="${colour}" stroke-width="0.95" stroke-linecap="round" stroke-linejoin="round"/>`;
}

function strokePath(stroke: string, left: number): string {
  let path = '';
  for (let i = 0; i < stroke.length; i += 2) path += `${i === 0 ? 'M' : 'L'}${left + Number(stroke[i])} ${stroke[i + 1]}`;
  // A stroke of no length is drawn as a dot by its round ends only if it is closed.
  return stroke.length === 4 && stroke.slice(0, 2) === stroke.slice(2) ? `${path}Z` : path;
}

function advance(glyph: string): number {
  let widest = 0;
  for (const stroke of glyph.split(' ')) for (let i = 0; i < stroke.length; i += 2) widest = Math.max(widest, Number(stroke[i]));
  return (glyph === '' ? SPACE - BETWEEN : widest) + BETWEEN;
}

function escapeXml(text: string): string {
  // Characters that XML forbids altogether come in file names too.
  const legal = text.replace(/[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\u{10000}-\u{10FFFF}]/gu, '\uFFFD');
  return legal.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
