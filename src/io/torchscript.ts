/**
 * Tensors of a TorchScript archive (`torch.jit.save`): a zip with the program's text, the tensors' bytes, and `data.pkl`, which says in
 * pickle's byte code which module has which tensor. The program is not looked at. The byte code is run by a machine that
 * can make data and call nothing (`torchscript-code.ts`). A file of `torch.save`, whose meaning is what the calls in it return, is not read.
 */
import { FailureError } from '../core/errors.js';
import { type Disk, type OpenFile, disk as realDisk } from './disk.js';
import type { SafeDType, SafeTensor } from './safetensors.js';
import { Instance, Program, TensorView, type Value } from './torchscript-code.js';
import { type Fail, LOCAL, openZip } from './zip.js';

/** A file is no TorchScript archive, or not one that can be read. */
export class TorchScriptError extends FailureError {}

const STORAGES: ReadonlyMap<string, readonly [SafeDType, number]> = new Map([
  ['torch.DoubleStorage', ['F64', 8]],
  ['torch.FloatStorage', ['F32', 4]],
  ['torch.BFloat16Storage', ['BF16', 2]],
  ['torch.HalfStorage', ['F16', 2]],
  ['torch.LongStorage', ['I64', 8]],
  ['torch.IntStorage', ['I32', 4]],
  ['torch.ShortStorage', ['I16', 2]],
  ['torch.CharStorage', ['I8', 1]],
  ['torch.ByteStorage', ['U8', 1]],
  ['torch.BoolStorage', ['BOOL', 1]],
]);
/** With which the header of a safetensors file begins, after its length. */
const BRACE = 0x7b;
const MAX_PROGRAM = 2 ** 24;
/** Of modules within modules, and of attributes in all: what refers to itself has no end. */
const MAX_DEPTH = 64;
const MAX_ATTRIBUTES = 2 ** 17;
const MAX_RANK = 32;

/** What the first bytes say a file is: a zip by its signature, a bare pickle by its protocol, 2 to 5, unless a header's length looks like that. */
export function looksLike(path: string, disk: Disk = realDisk): 'zip' | 'pickle' | undefined {
  const file = disk.open(path);
  try {
    const bytes = file.read(0, Math.min(9, file.size));
    const [mark, protocol = 0] = bytes;
    if (bytes.length === 9 && new DataView(bytes.buffer).getUint32(0, true) === LOCAL) return 'zip';
    return mark === 0x80 && protocol >= 2 && protocol <= 5 && bytes[8] !== BRACE ? 'pickle' : undefined;
  } finally {
    file.close();
  }
}

/**
 * The tensors of a module and of the modules in it, parameters and buffers, under their attributes' names joined by dots.
 * @returns undefined for an archive of `torch.save`, a pickle
 * @throws TorchScriptError saying what is wrong with the file; DiskError if it cannot be read
 */
export function readTorchScript(path: string, disk: Disk = realDisk): Map<string, SafeTensor> | undefined {
  const fail: Fail = (problem) => {
    throw new TorchScriptError(`${path} is not a valid TorchScript file: ${problem}`);
  };
  const file = disk.open(path);
  try {
    const zip = openZip(file, fail);
    const programs = [...zip.entries.values()].filter(({ name }) => /^[^/]+\/data\.pkl$/.test(name));
    const [program] = programs;
    if (!program || programs.length > 1) return fail(`it has ${programs.length} files called data.pkl`);
    const root = program.name.slice(0, -'data.pkl'.length);
    if (!zip.entries.has(`${root}constants.pkl`)) return undefined;
    const order = zip.entries.get(`${root}byteorder`);
    if (order && new TextDecoder().decode(zip.unpack(order)) !== 'little') fail('its numbers are not little-endian');
    if (program.size > MAX_PROGRAM) fail(`its data.pkl has ${program.size} bytes`);
    const read = new Map<string, Uint8Array>();
    const bytesOf = (key: string): Uint8Array | undefined => {
      const entry = zip.entries.get(`${root}data/${key}`);
      // Many tensors may be parts of the same bytes.
      if (entry && !read.has(key)) read.set(key, zip.unpack(entry));
      return read.get(key);
    };
    const module = new Program(zip.unpack(program), fail).run();
    return tensorsOf(module, (tensor, name) => load(tensor, name, bytesOf, fail), file, fail);
  } finally {
    file.close();
  }
}

/** Walks the modules. */
function tensorsOf(
  module: Value,
  load: (tensor: TensorView, name: string) => SafeTensor,
  file: OpenFile,
  fail: Fail,
): Map<string, SafeTensor> {
  const tensors = new Map<string, SafeTensor>();
  let attributes = 0;
  let bytes = 0;
  const visit = (value: Value, name: string, depth: number): void => {
    if (depth > MAX_DEPTH || ++attributes > MAX_ATTRIBUTES) fail('its modules have no end');
    if (value instanceof TensorView) {
      if (tensors.has(name)) fail(`it has the tensor ${JSON.stringify(name)} twice`);
      const tensor = load(value, name);
      // Several tensors may share bytes, but not without end.
      bytes += tensor.data.byteLength;
      if (bytes > 2 * file.size) fail('its tensors take more than twice its size');
      tensors.set(name, tensor);
    } else if (value instanceof Instance)
      for (const [attribute, inner] of value.state) visit(inner, name === '' ? attribute : `${name}.${attribute}`, depth + 1);
  };
  if (!(module instanceof Instance)) fail('it holds no module');
  visit(module, '', 0);
  return tensors;
}

/** A tensor's elements, row-major. */
function load(tensor: TensorView, name: string, bytesOf: (key: string) => Uint8Array | undefined, fail: Fail): SafeTensor {
  const { storage, offset, shape, strides } = tensor;
  const quoted = JSON.stringify(name);
  const [dtype, width] = STORAGES.get(storage.type) ?? fail(`the tensor ${quoted} has the type ${JSON.stringify(storage.type)}`);
  const bytes = bytesOf(storage.key) ?? fail(`the bytes of the tensor ${quoted} are not in it`);
  if (bytes.length !== storage.length * width) fail(`the tensor ${quoted} should have ${storage.length} elements in ${bytes.length} bytes`);
  const whole = (values: readonly number[]): boolean => values.every((value) => Number.isSafeInteger(value) && value >= 0);
  const count = shape.reduce((product, extent) => product * extent, 1);
  const last = shape.reduce((at, extent, axis) => at + (extent - 1) * strides[axis]!, offset);
  const fits = shape.length <= MAX_RANK && strides.length === shape.length && whole([...shape, ...strides, offset, count]);
  // An expanded tensor would be larger than its bytes.
  if (!fits || count > storage.length || (count > 0 && !(last < storage.length)))
    fail(`the tensor ${quoted} of shape [${shape}] and strides [${strides}] does not lie in its ${storage.length} elements`);
  const data = new Uint8Array(count * width);
  let dense = 1;
  const contiguous = shape.reduceRight((same, extent, axis) => {
    const expected = dense;
    dense *= extent;
    return same && (extent === 1 || strides[axis] === expected);
  }, true);
  if (contiguous || count === 0) data.set(bytes.subarray(offset * width, (offset + count) * width));
  else
    for (let i = 0; i < count; i++) {
      let [rest, at] = [i, offset];
      for (let axis = shape.length - 1; axis >= 0; axis--) {
        at += (rest % shape[axis]!) * strides[axis]!;
        rest = Math.floor(rest / shape[axis]!);
      }
      for (let byte = 0; byte < width; byte++) data[i * width + byte] = bytes[at * width + byte]!;
    }
  return { dtype, shape, data };
}
