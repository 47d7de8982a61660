// Opens one delivery and checks everything that can be checked with public keys: written from docs/envelope.md alone.
//
//     node docs/open-delivery.mjs DELIVERY --vkey TEXT|FILE --issuer-key HEX [--issuer AT/ncb] [--bureau GE/ncb]
//                                 [--federation ID] [--index N] [--shard N] [--now MS]
//
// Prints one JSON object. Exit codes: 0 everything holds, 2 usage, 4 something does not (its reason on stderr).
// Node 20, no packages. Comments name the section of the page.

import { createHash, createPublicKey, verify } from 'node:crypto';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { parseArgs } from 'node:util';

class Refused extends Error {}
class Usage extends Error {}

function demand(holds, reason) {
  if (!holds) throw new Refused(reason);
}

const sha256 = (...parts) => parts.reduce((hash, part) => hash.update(part), createHash('sha256')).digest();
const hex = (bytes) => Buffer.from(bytes).toString('hex');
const same = (a, b) => Buffer.compare(a, b) === 0;

// 1 and 2: Avro

const SCHEMAS = {
  envelope: '0df2250c5c5dd3e5',
  header: '5b9c763832a86ea5',
  compartments: '6ce2e41ae4592073',
  delivery: '4bd7eeb770d838b8',
  shared: '0e6a91813f6a7d79',
  row: '438c62f694e28f2e',
  leaf: 'd1e7279edb4af278',
};
const LONG_MAX = 2n ** 64n;
const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  take(size) {
    demand(size >= 0 && size <= this.bytes.length - this.at, 'the record is cut short');
    this.at += size;
    return this.bytes.subarray(this.at - size, this.at);
  }

  long() {
    let raw = 0n;
    for (let shift = 0n; ; shift += 7n) {
      demand(shift < 70n, 'a number of more than ten bytes');
      const [byte] = this.take(1);
      raw |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    demand(raw < LONG_MAX, 'a number beyond 64 bits');
    return (raw >> 1n) ^ -(raw & 1n);
  }

  size() {
    const size = this.long();
    demand(size >= 0n && size <= BigInt(this.bytes.length), 'a length that cannot be');
    return Number(size);
  }

  bytesField() {
    return this.take(this.size());
  }

  string() {
    try {
      return UTF8.decode(this.bytesField());
    } catch (error) {
      if (error instanceof Refused) throw error;
      throw new Refused('a string is not UTF-8');
    }
  }

  boolean() {
    const [byte] = this.take(1);
    demand(byte <= 1, 'a boolean other than 0 or 1');
    return byte === 1;
  }

  optional(read) {
    const branch = this.long();
    demand(branch === 0n || branch === 1n, 'a union has two branches');
    return branch === 0n ? null : read();
  }

  array(read) {
    const items = [];
    for (let count = this.long(); count !== 0n; count = this.long()) {
      let end = -1;
      if (count < 0n) {
        end = this.size() + this.at;
        count = -count;
      }
      demand(count <= BigInt(this.bytes.length), 'more items than bytes'); // no item has zero bytes
      for (let n = 0n; n < count; n++) items.push(read());
      demand(end < 0 || end === this.at, 'a block of another size than it says');
    }
    return items;
  }
}

function decode(name, bytes, fields) {
  demand(bytes.length >= 10 && hex(bytes.subarray(0, 10)) === `c301${SCHEMAS[name]}`, `not a ${name} record`);
  const reader = new Reader(bytes);
  reader.take(10);
  const record = fields(reader);
  demand(reader.at === bytes.length, `bytes are left over after the ${name} record`);
  return record;
}

// In an object literal the fields are read in the order in which they are written.
const delivery = (r) => ({
  leafNumber: r.long(),
  shard: r.long(),
  bureau: r.string(),
  deliveryNumber: r.long(),
  row: r.bytesField(),
  salt: r.take(32),
  path: r.bytesField(),
  index: r.long(),
  replaces: r.array(() => r.long()),
  erases: r.array(() => r.long()),
  shared: r.bytesField(),
});
const shared = (r) => ({ envelope: r.bytesField(), leaf: r.bytesField(), proof: r.string() });
const envelope = (r) => ({
  header: r.bytesField(),
  keyId: r.take(32),
  signature: r.bytesField(),
  compartments: r.bytesField(),
});
const row = (r) => ({ bureau: r.string(), deliveryNumber: r.long(), shown: r.long() });
const leaf = (r) => ({
  kind: r.string(),
  now: r.long(),
  code: r.optional(() => r.string()),
  headerDigest: r.optional(() => r.take(32)),
  about: r.optional(() => r.long()),
  missing: r.long(),
  directory: r.take(32),
  policies: r.take(32),
  decision: r.take(32),
  rows: r.optional(() => r.take(32)),
});
const reference = (r) => ({
  issuer: r.string(),
  notice_id: r.take(16),
  header_digest: r.take(32),
  relation: r.string(),
});
const header = (r) => ({
  federation: r.string(),
  notice_id: r.take(16),
  record: r.string(),
  version: r.long(),
  issuer: r.string(),
  kind: r.string(),
  conversation: r.optional(() => r.string()),
  references: r.array(() => reference(r)),
  topics: r.array(() => r.string()),
  action_sought: r.optional(() => r.string()),
  urgency: r.string(),
  acknowledge_by: r.optional(() => r.long()),
  answer_by: r.optional(() => r.long()),
  purpose: r.string(),
  legal_basis: r.string(),
  handling: r.array(() => r.string()),
  handling_text: r.optional(() => r.string()),
  confidentiality: r.string(),
  source_evaluation: r.optional(() => r.string()),
  information_evaluation: r.optional(() => r.long()),
  issued: r.long(),
  expires: r.optional(() => r.long()),
  retain_until: r.optional(() => r.long()),
  review_due: r.optional(() => r.long()),
  languages: r.array(() => r.string()),
  exercise: r.boolean(),
  compartments: r.array(() => ({ name: r.string(), digest: r.take(32) })),
});
const opened = (r) => ({ salt: r.take(32), data: r.bytesField() });
const compartments = (r) => r.array(() => ({ name: r.string(), opened: r.optional(() => opened(r)) }));

// 3: keys, signatures, digests

const KINDS = {
  person:
    'routing identity warnings description warrants biometrics location associates narrative contact source',
  organisation: 'routing identity description location associates assets narrative contact source',
  object: 'routing identity description location associates assets narrative contact source',
  network: 'routing entities links events assets assessments source',
  report: 'routing summary findings sanitised chart method',
  contact: 'routing expertise desk',
  request: 'routing question identity desk',
  answer: 'routing reply identity desk',
  withdrawal: 'routing reason',
  restriction: 'routing reason',
  approval: 'routing terms',
};
const HEADER_TYPE = 'application/vnd.valise.header.v1+avro';
const RECORD_LIMIT = 1_000_000;
const SKEW_MS = 300_000n;

function publicKey(raw) {
  demand(raw.length === 32, 'a public key has 32 bytes');
  return createPublicKey({ format: 'jwk', key: { kty: 'OKP', crv: 'Ed25519', x: raw.toString('base64url') } });
}

function signed(raw, message, signature) {
  return signature.length === 64 && verify(null, message, publicKey(raw), signature);
}

function pae(type, payload) {
  return Buffer.concat([Buffer.from(`DSSEv1 ${Buffer.byteLength(type)} ${type} ${payload.length} `), payload]);
}

function compartmentDigest(name, { salt, data }) {
  const raw = Buffer.from(name);
  const length = Buffer.alloc(2);
  length.writeUInt16BE(raw.length);
  return sha256('valise/compartment/v1\0', length, raw, salt, data);
}

// 6: the log

const node = (left, right) => sha256(Buffer.of(1), left, right);

function base64(text) {
  const raw = Buffer.from(text, 'base64');
  demand(raw.toString('base64') === text, 'not base64 in its canonical form');
  return raw;
}

function decimal(text) {
  demand(/^(0|[1-9][0-9]{0,18})$/.test(text), 'not a number without leading zeroes');
  return BigInt(text);
}

function parseVkey(text) {
  const parts = /^([^\s+]+)\+([0-9a-f]{8})\+(.+)$/.exec(text.trim());
  demand(parts, 'not a verifier key');
  const [, name, id, key] = parts;
  const typed = base64(key);
  demand(typed.length === 33 && typed[0] === 1, 'not an Ed25519 verifier key');
  demand(hex(sha256(name, '\n', typed).subarray(0, 4)) === id, 'the ID of the verifier key does not fit');
  return { name, id: Buffer.from(id, 'hex'), raw: typed.subarray(1) };
}

function openCheckpoint(note, vkey) {
  const split = note.lastIndexOf('\n\n');
  demand(split > 0 && note.endsWith('\n') && !/[\0-\x09\x0b-\x1f]/.test(note), 'not a signed note');
  const text = note.slice(0, split + 1);
  let good = false;
  for (const line of note.slice(split + 2, -1).split('\n')) {
    const parts = /^— ([^\s+]+) (\S+)$/.exec(line);
    demand(parts, 'not a signature line');
    const raw = base64(parts[2]);
    demand(raw.length > 4, 'a signature line without a signature');
    if (parts[1] !== vkey.name || !same(raw.subarray(0, 4), vkey.id)) continue;
    demand(signed(vkey.raw, Buffer.from(text), raw.subarray(4)), 'the signature of the checkpoint is not good');
    good = true;
  }
  demand(good, 'the checkpoint is not signed by this log');
  const lines = text.split('\n');
  demand(lines.length === 4 && lines[3] === '', 'not a checkpoint of three lines');
  demand(lines[0] === vkey.name, 'a checkpoint of another log');
  const root = base64(lines[2]);
  demand(root.length === 32, 'a root has 32 bytes');
  return { origin: lines[0], size: decimal(lines[1]), root };
}

function parseProof(text) {
  const split = text.indexOf('\n\n');
  demand(split > 0, 'not a tlog-proof');
  const lines = text.slice(0, split).split('\n');
  demand(lines.shift() === 'c2sp.org/tlog-proof@v1', 'not a tlog-proof');
  if (lines[0]?.startsWith('extra ')) lines.shift();
  const number = lines.shift();
  demand(number?.startsWith('index '), 'a tlog-proof without an index');
  const hashes = lines.map(base64);
  demand(hashes.length <= 63 && hashes.every((each) => each.length === 32), 'not hashes of a proof');
  return { number: decimal(number.slice('index '.length)), hashes, checkpoint: text.slice(split + 2) };
}

function included(leafHash, number, size, hashes, root) {
  if (number >= size) return false;
  let [f, s, r] = [number, size - 1n, leafHash];
  for (const p of hashes) {
    if (s === 0n) return false;
    if (f & 1n || f === s) {
      r = node(p, r);
      while (!(f & 1n) && f !== 0n) [f, s] = [f >> 1n, s >> 1n];
    } else {
      r = node(r, p);
    }
    [f, s] = [f >> 1n, s >> 1n];
  }
  return s === 0n && same(r, root);
}

// 5: the row

function rowRoot(given) {
  const depth = given.path.length / 32;
  demand(Number.isInteger(depth) && depth >= 6 && depth <= 32, 'a path of a wrong length');
  demand(given.index >= 0n && given.index < 1n << BigInt(depth), 'an index beyond the path');
  let hash = sha256(Buffer.of(0), given.salt, given.row);
  for (let level = 0; level < depth; level++) {
    const sibling = given.path.subarray(32 * level, 32 * level + 32);
    hash = (given.index >> BigInt(level)) & 1n ? node(sibling, hash) : node(hash, sibling);
  }
  return hash;
}

// 7: the checks, in their order

function open(bytes, known) {
  demand(bytes.length <= RECORD_LIMIT, `over ${RECORD_LIMIT} bytes`);
  const given = decode('delivery', bytes, delivery);
  demand(known.bureau === undefined || given.bureau === known.bureau, 'made for another bureau');
  demand(given.shard === known.shard, 'of another shard');
  demand(known.index === undefined || given.index === known.index, 'the row is at the place of another bureau');
  const common = decode('shared', given.shared, shared);

  const proof = parseProof(common.proof);
  demand(proof.number === given.leafNumber, 'the proof is that of another leaf');
  const head = openCheckpoint(proof.checkpoint, known.vkey);
  const leafHash = sha256(Buffer.of(0), common.leaf);
  demand(included(leafHash, proof.number, head.size, proof.hashes, head.root), 'the leaf is not in the log');
  const entry = decode('leaf', common.leaf, leaf);
  demand(['routed', 'held', 'released'].includes(entry.kind) && entry.rows && entry.headerDigest, 'a leaf without deliveries');

  demand(same(rowRoot(given), entry.rows), 'the row is not below the root of rows');
  const line = decode('row', given.row, row);
  demand(line.bureau === given.bureau, 'the row is that of another bureau');
  demand(line.deliveryNumber === given.deliveryNumber, 'the row has another delivery number');

  const sent = decode('envelope', common.envelope, envelope);
  const headerDigest = sha256('valise/header/v1\0', sent.header);
  demand(same(headerDigest, entry.headerDigest), 'the leaf is that of another header');
  demand(same(sha256(Buffer.of(1), known.issuerKey), sent.keyId), 'signed with another key');
  demand(signed(known.issuerKey, pae(HEADER_TYPE, sent.header), sent.signature), 'the signature is not good');
  const heading = decode('header', sent.header, header);
  demand(known.issuer === undefined || heading.issuer === known.issuer, 'the issuer is not the owner of the key');
  demand(known.federation === undefined || heading.federation === known.federation, 'of another federation');
  demand(head.origin.replace(/\.[1-9][0-9]*$/, '') === logOf(heading.federation, given.shard), "the log is not that of the header's federation");

  const parts = decode('compartments', sent.compartments, compartments);
  const shown = checkParts(heading, parts);
  const ends = [heading.expires, heading.retain_until, heading.review_due];
  const expired = shown === 0n && ends.some((each) => each !== null && each <= known.now + SKEW_MS);
  demand(shown === line.shown || expired, 'what is open is not what the row says is shown');
  return report({ given, entry, line, head, heading, parts, leafHash, headerDigest });
}

const logOf = (federation, shard) => `${federation}/trail${shard === 0n ? '' : `-${shard}`}`;

function checkParts(head, parts) {
  const names = Object.hasOwn(KINDS, head.kind) ? KINDS[head.kind].split(' ') : [];
  const listed = (items) => items.map((each) => each.name).join(' ') === names.join(' ');
  demand(names.length && listed(head.compartments) && listed(parts), 'the compartments are not those of the kind');
  let shown = 0n;
  parts.forEach((part, position) => {
    if (part.opened === null) return;
    const fits = same(compartmentDigest(part.name, part.opened), head.compartments[position].digest);
    demand(fits, `the digest of ${part.name} does not fit`);
    shown |= 1n << BigInt(position);
  });
  return shown;
}

function report({ given, entry, line, head, heading, parts, leafHash, headerDigest }) {
  return {
    bureau: given.bureau,
    delivery_number: given.deliveryNumber,
    leaf_number: given.leafNumber,
    leaf_hash: leafHash,
    kind: entry.kind,
    now: entry.now,
    directory: entry.directory,
    policies: entry.policies,
    log: head,
    shown: line.shown,
    replaces: given.replaces,
    erases: given.erases,
    header_digest: headerDigest,
    header: heading,
    opened: parts
      .filter((part) => part.opened)
      .map(({ name, opened: { data } }) => ({ name, schema: data.subarray(2, 10), bytes: data })),
  };
}

// The command

function plain(key, value) {
  const before = this[key]; // a Buffer has become an object before it is given here
  if (Buffer.isBuffer(before)) return hex(before);
  if (typeof value !== 'bigint') return value;
  return Number.isSafeInteger(Number(value)) ? Number(value) : value.toString();
}

function command() {
  const text = { type: 'string' };
  let read;
  try {
    read = parseArgs({
      allowPositionals: true,
      options: {
        vkey: text, 'issuer-key': text, issuer: text, bureau: text, federation: text, index: text, shard: text, now: text,
      },
    });
  } catch (error) {
    throw new Usage(error.message);
  }
  const { positionals, values } = read;
  const number = (name) => {
    if (values[name] === undefined) return undefined;
    if (!/^[0-9]{1,18}$/.test(values[name])) throw new Usage(`--${name} is a number`);
    return BigInt(values[name]);
  };
  if (positionals.length !== 1 || !values.vkey || !/^[0-9a-f]{64}$/.test(values['issuer-key'] ?? '')) {
    throw new Usage('open-delivery.mjs DELIVERY --vkey TEXT|FILE --issuer-key HEX');
  }
  const vkey = existsSync(values.vkey) ? readFileSync(values.vkey, 'utf8') : values.vkey;
  const known = {
    vkey: parseVkey(vkey),
    issuerKey: Buffer.from(values['issuer-key'], 'hex'),
    issuer: values.issuer,
    bureau: values.bureau,
    federation: values.federation,
    index: number('index'),
    shard: number('shard') ?? 0n,
    now: number('now') ?? BigInt(Date.now()),
  };
  const [path] = positionals;
  if (!existsSync(path)) throw new Usage(`no such file: ${path}`);
  demand(statSync(path).size <= RECORD_LIMIT, `over ${RECORD_LIMIT} bytes`);
  return open(readFileSync(path), known);
}

try {
  console.log(JSON.stringify(command(), plain, 1));
} catch (error) {
  if (!(error instanceof Refused) && !(error instanceof Usage)) throw error;
  console.error(error.message);
  process.exitCode = error instanceof Usage ? 2 : 4;
}
