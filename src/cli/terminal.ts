/** What may be done to a stream: move within a line, colour. Nothing but `src/cli` writes to one. */

export interface Terminal {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
}

/** Whether a line can be written over. */
export const isLive = (stream: Terminal, env: NodeJS.ProcessEnv = process.env): boolean => stream.isTTY === true && env.TERM !== 'dumb';

/** Columns of a terminal; 80 where it does not say. */
export const columnsOf = (stream: Terminal): number => stream.columns || 80;

type Paint = (text: string) => string;

/** Colours, where the stream shows them and the user (https://no-color.org) does not mind. */
export function paint(stream: Terminal, env: NodeJS.ProcessEnv = process.env): { bold: Paint; dim: Paint; red: Paint } {
  const on = isLive(stream, env) && !env.NO_COLOR;
  const code =
    (begin: number, end: number): Paint =>
    (text) =>
      on ? `\x1b[${begin}m${text}\x1b[${end}m` : text;
  return { bold: code(1, 22), dim: code(2, 22), red: code(31, 39) };
}
