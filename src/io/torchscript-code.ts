/**
 * The byte code by which a TorchScript archive says which module has which tensor: pickle's, of protocol 2, with the instructions that libtorch's
 * serializer writes. It is a stack machine that makes data. Nothing can be called: what a call would return is a tensor's place where the
 * callable is the one that describes tensors, and nothing where it is any other.
 */
import type { Fail } from './zip.js';

/** Values that the byte code makes. Lists and tuples are arrays; what has no meaning here, such as a dictionary's number as a key, is null. */
export type Value = null | boolean | number | string | Value[] | Global | Instance | Storage | TensorView | typeof MARK;

const MARK = Symbol('mark');

class Global {
  constructor(readonly name: string) {}
}

/** An object or a dictionary: its attributes. */
export class Instance {
  state = new Map<string, Value>();
}

class Storage {
  constructor(
    readonly type: string,
    readonly key: string,
    readonly length: number,
  ) {}
}

export class TensorView {
  constructor(
    readonly storage: Storage,
    readonly offset: number,
    readonly shape: readonly number[],
    readonly strides: readonly number[],
  ) {}
}

/** One program, which is run once. Every problem with it goes to `stop`. */
export class Program {
  private readonly view: DataView;
  private readonly stack: Value[] = [];
  private readonly memo = new Map<number, Value>();
  private at = 0;

  constructor(
    private readonly bytes: Uint8Array,
    private readonly stop: Fail,
  ) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  run(): Value {
    while (this.at < this.bytes.length) {
      const code = String.fromCharCode(this.bytes[this.at++]!);
      if (code === '.') return this.pop();
      this.step(code);
    }
    return this.stop('its data.pkl has no end');
  }

  private step(code: string): void {
    const value = this.value(code);
    if (value === undefined) this.change(code);
    else this.stack.push(value);
  }

  /** What an instruction puts on the stack; undefined for one that changes what is there. */
  private value(code: string): Value | undefined {
    switch (code) {
      case '(':
        return MARK;
      case 'N':
        return null;
      case '\x88':
        return true;
      case '\x89':
        return false;
      case 'K':
        return this.take(1).getUint8(0);
      case 'M':
        return this.take(2).getUint16(0, true);
      case 'J':
        return this.take(4).getInt32(0, true);
      case '\x8a':
        return this.long(this.take(this.take(1).getUint8(0)));
      case 'G':
        return this.take(8).getFloat64(0);
      case 'X':
        return this.text(this.take(this.take(4).getUint32(0, true)));
      case 'c':
        return new Global(`${this.line()}.${this.line()}`);
      case ')':
      case ']':
        return [];
      case '}':
        return new Instance();
      case 't':
        return this.marked();
      case '\x85':
      case '\x86':
      case '\x87':
        return this.several(code.charCodeAt(0) - 0x84);
      case 'h':
        return this.kept(this.take(1).getUint8(0));
      case 'j':
        return this.kept(this.take(4).getUint32(0, true));
      case 'Q':
        return this.storage(this.pop());
      case '\x81': // an object: its class and the class's arguments, of which libtorch writes none
        this.several(2);
        return new Instance();
      case 'R':
        return this.made(...(this.several(2) as [Value, Value]));
      default:
        return undefined;
    }
  }

  private change(code: string): void {
    switch (code) {
      case '\x80':
        if (this.take(1).getUint8(0) !== 2) this.stop('its data.pkl is of an unknown protocol');
        break;
      case 'q':
        this.memo.set(this.take(1).getUint8(0), this.stack.at(-1) ?? null);
        break;
      case 'r':
        this.memo.set(this.take(4).getUint32(0, true), this.stack.at(-1) ?? null);
        break;
      case 'a':
        this.append(this.several(1));
        break;
      case 'e':
        this.append(this.marked());
        break;
      case 's':
        this.set(this.several(2));
        break;
      case 'u':
        this.set(this.marked());
        break;
      case 'b': {
        const [state] = this.several(1);
        const object = this.stack.at(-1);
        if (object instanceof Instance && state instanceof Instance) object.state = state.state;
        break;
      }
      default:
        this.stop(`its data.pkl has the instruction ${JSON.stringify(code)}, which TorchScript does not use`);
    }
  }

  private made(callable: Value, values: Value): Value {
    if (!(callable instanceof Global) || callable.name !== 'torch._utils._rebuild_tensor_v2' || !Array.isArray(values)) return null;
    const [storage, offset, shape, strides] = values;
    const numbers = (value: Value | undefined): value is number[] =>
      Array.isArray(value) && value.every((each) => typeof each === 'number');
    if (!(storage instanceof Storage) || typeof offset !== 'number' || !numbers(shape) || !numbers(strides))
      return this.stop('its data.pkl describes a tensor in an unknown way');
    return new TensorView(storage, offset, shape, strides);
  }

  private storage(id: Value): Storage {
    const [kind, type, key, , length] = Array.isArray(id) ? id : [];
    if (kind !== 'storage' || !(type instanceof Global) || typeof key !== 'string' || typeof length !== 'number')
      return this.stop('its data.pkl names bytes in an unknown way');
    return new Storage(type.name, key, length);
  }

  private append(values: Value[]): void {
    const list = this.stack.at(-1);
    if (!Array.isArray(list)) this.stop('its data.pkl appends to what is no list');
    else for (const value of values) list.push(value);
  }

  private set(pairs: Value[]): void {
    const target = this.stack.at(-1);
    if (!(target instanceof Instance) || pairs.length % 2 === 1) throw this.stop('its data.pkl puts a key into what is no dictionary');
    for (let i = 0; i < pairs.length; i += 2) {
      const key = pairs[i];
      if (typeof key === 'string') target.state.set(key, pairs[i + 1]!);
    }
  }

  private kept(slot: number): Value {
    const value = this.memo.get(slot);
    return value === undefined ? this.stop('its data.pkl asks for what it has not kept') : value;
  }

  private pop(): Value {
    const value = this.stack.pop();
    return value === undefined || value === MARK ? this.stop('its data.pkl takes what it has not given') : value;
  }

  private several(count: number): Value[] {
    return Array.from({ length: count }, () => this.pop()).reverse();
  }

  /** All above the last mark, which goes. */
  private marked(): Value[] {
    const at = this.stack.lastIndexOf(MARK);
    if (at < 0) return this.stop('its data.pkl takes what it has not given');
    const values = this.stack.splice(at + 1);
    this.stack.pop();
    return values;
  }

  private take(count: number): DataView {
    if (this.at + count > this.bytes.length) this.stop('its data.pkl is cut off');
    this.at += count;
    return new DataView(this.view.buffer, this.view.byteOffset + this.at - count, count);
  }

  /** A little-endian integer in two's complement; one of more than eight bytes is none of a tensor's. */
  private long(digits: DataView): number | null {
    if (digits.byteLength > 8) return null;
    let value = 0n;
    for (let i = digits.byteLength - 1; i >= 0; i--) value = (value << 8n) | BigInt(digits.getUint8(i));
    return Number(BigInt.asIntN(8 * digits.byteLength, value));
  }

  private text(bytes: DataView): string {
    try {
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch {
      return this.stop('its data.pkl has text that is not UTF-8');
    }
  }

  private line(): string {
    const end = this.bytes.indexOf(0x0a, this.at);
    if (end < 0) return this.stop('its data.pkl is cut off');
    const text = this.take(end - this.at);
    this.at++;
    return this.text(text);
  }
}
