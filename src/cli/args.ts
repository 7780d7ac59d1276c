/**
 * A strict reader of command lines: every flag is declared with its kind and a line of help, and what is not declared is refused with the
 * nearest flag there is. Numbers are checked here, so that a command sees none that it did not ask for.
 */
import { nearest, UsageError } from '../core/errors.js';

interface Described {
  /** One line of help. */
  readonly about: string;
  /** May be given several times; its value is a list. */
  readonly repeat?: true;
}

/** A flag of a command. `value` is what help calls its value. */
export type Flag =
  | (Described & { readonly kind: 'switch' })
  | (Described & { readonly kind: 'text'; readonly value: string })
  /** A whole number from `min` (0 if absent) to `max`. */
  | (Described & { readonly kind: 'whole'; readonly value: string; readonly min?: number; readonly max?: number })
  | (Described & { readonly kind: 'number'; readonly value: string; readonly min?: number; readonly max?: number })
  /** Numbers between commas. */
  | (Described & { readonly kind: 'numbers'; readonly value: string; readonly min?: number; readonly max?: number })
  | (Described & { readonly kind: 'choice'; readonly of: readonly string[] });

export type Flags = { readonly [name: string]: Flag };

type ValueOf<F extends Flag> = F extends { kind: 'switch' }
  ? boolean
  : F extends { kind: 'whole' | 'number' }
    ? number
    : F extends { kind: 'numbers' }
      ? readonly number[]
      : F extends { kind: 'choice'; of: readonly (infer Word)[] }
        ? Word
        : string;

/** What a command gets: a switch is true or false, a flag that was not given undefined, one that may repeat a list. */
export type Values<Fs extends Flags> = {
  readonly [Name in keyof Fs]: Fs[Name] extends { repeat: true }
    ? readonly ValueOf<Fs[Name]>[]
    : Fs[Name] extends { kind: 'switch' }
      ? boolean
      : ValueOf<Fs[Name]> | undefined;
};

/** What stands on the line beside flags. */
export interface Operands {
  /** What help and errors call them: 'RUN|WEIGHTS'. Empty if there are none. */
  readonly names: string;
  readonly min: number;
  readonly max: number;
}

export interface Grammar<Fs extends Flags> {
  readonly name: string;
  readonly flags: Fs;
  readonly operands: Operands;
  /** Dotted names of what --set takes, for those who write one of them as a flag. */
  readonly settings?: () => readonly string[];
}

/**
 * Reads the words after a command's name. `--flag value` and `--flag=value` are the same; after `--` all words are operands.
 * @throws UsageError naming the word, what was wrong with it, and the flag that was probably meant
 */
export function parse<Fs extends Flags>(
  words: readonly string[],
  { name, flags, operands, settings }: Grammar<Fs>,
): { values: Values<Fs>; operands: string[] } {
  const found = new Map<string, unknown>();
  const rest: string[] = [];
  for (let i = 0; i < words.length; i++) {
    const word = words[i] as string;
    if (word === '--') {
      rest.push(...words.slice(i + 1));
      break;
    }
    if (!word.startsWith('-') || word === '-') {
      rest.push(word);
      continue;
    }
    const equals = word.startsWith('--') ? word.indexOf('=') : -1;
    const key = equals < 0 ? word : word.slice(0, equals);
    const flag = key.startsWith('--') && Object.hasOwn(flags, key.slice(2)) ? flags[key.slice(2)] : undefined;
    if (!flag)
      throw unknownFlag(key, equals < 0 ? words[i + 1] : word.slice(equals + 1), { name, flags, ...(settings ? { settings } : {}) });
    if (flag.kind === 'switch') {
      if (equals >= 0) throw new UsageError(`${key} takes no value, found '${word.slice(equals + 1)}'`);
      found.set(key, true);
      continue;
    }
    let text = word.slice(equals + 1);
    if (equals < 0) {
      const next = words[i + 1];
      // '-1' may be a value, and then its own check refuses it with a better reason; '--other' never is one.
      if (next === undefined || next.startsWith('--')) throw new UsageError(`${key} wants a value: ${key} ${valueName(flag)}`);
      text = next;
      i++;
    }
    const value = read(key, flag, text);
    if (flag.repeat) found.set(key, [...((found.get(key) as unknown[] | undefined) ?? []), value]);
    else if (found.has(key)) throw new UsageError(`${key} was given twice`);
    else found.set(key, value);
  }
  checkOperands(name, operands, rest);
  const values = Object.entries(flags).map(([flagName, flag]) => {
    const value = found.get(`--${flagName}`);
    return [flagName, value ?? (flag.kind === 'switch' ? false : flag.repeat ? [] : undefined)];
  });
  return { values: Object.fromEntries(values) as Values<Fs>, operands: rest };
}

function unknownFlag(key: string, next: string | undefined, { name, flags, settings }: Omit<Grammar<Flags>, 'operands'>): UsageError {
  const meant = settings && key.startsWith('--') ? settingsMeant(key, settings()) : [];
  if (meant.length > 0) {
    const value = next === undefined || next.startsWith('--') ? 'VALUE' : next;
    const lines = meant.map((setting) => `--set ${setting}=${value}`);
    return new UsageError(`dsd ${name} has no flag '${key}'; a setting is given by --set: ${lines.join(' or ')}`);
  }
  const guess = nearest(key.replace(/^-+/, ''), Object.keys(flags));
  return new UsageError(`dsd ${name} has no flag '${key}'${guess ? `; did you mean '--${guess}'?` : ''}`);
}

/** The settings whose name, or the last part of it, is this flag's: --train.batch, --batch, --learning-rate. */
function settingsMeant(key: string, settings: readonly string[]): string[] {
  const bare = (text: string): string => text.replaceAll(/[-_]/g, '').toLowerCase();
  const wanted = bare(key);
  return settings.filter((setting) => `.${bare(setting)}`.endsWith(`.${wanted}`));
}

function checkOperands(command: string, { names, min, max }: Operands, found: readonly string[]): void {
  if (found.length < min) throw new UsageError(`dsd ${command} wants ${names}`);
  if (found.length <= max) return;
  const extra = found.slice(max).map((word) => `'${word}'`);
  throw new UsageError(`dsd ${command} ${max === 0 ? 'takes only flags' : `takes ${names} and flags`}; found ${extra.join(', ')} as well`);
}

/** What help calls a flag's value; empty for a switch. */
export function valueName(flag: Flag): string {
  if (flag.kind === 'switch') return '';
  return flag.kind === 'choice' ? flag.of.join('|') : flag.value;
}

function read(key: string, flag: Exclude<Flag, { kind: 'switch' }>, text: string): string | number | number[] {
  switch (flag.kind) {
    case 'text':
      if (text === '') throw new UsageError(`${key} wants ${flag.value}, found an empty word`);
      return text;
    case 'choice': {
      if (flag.of.includes(text)) return text;
      const guess = nearest(text, flag.of);
      throw new UsageError(`${key} is one of ${flag.of.join(', ')}; found '${text}'${guess ? `: did you mean '${guess}'?` : ''}`);
    }
    case 'whole':
      return readNumber(key, text, flag.min ?? 0, flag.max, true);
    case 'number':
      return readNumber(key, text, flag.min, flag.max, false);
    case 'numbers':
      return text.split(',').map((part) => readNumber(key, part, flag.min, flag.max, false));
  }
}

function readNumber(key: string, text: string, min: number | undefined, max: number | undefined, whole: boolean): number {
  const value = /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(text) ? Number(text) : Number.NaN;
  const fits = whole ? Number.isSafeInteger(value) : Number.isFinite(value);
  if (fits && value >= (min ?? value) && value <= (max ?? value)) return value;
  const range = max === undefined ? (min === undefined ? '' : ` of at least ${min}`) : ` from ${min ?? 0} to ${max}`;
  throw new UsageError(`${key} wants a ${whole ? 'whole number' : 'number'}${range}, found '${text}'`);
}
