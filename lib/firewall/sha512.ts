/**
 * SHA-512, for names of chains and devices. Not node:crypto, whose loading takes four and a half of the forty milliseconds that a plugin
 * runs, nor a library, which takes one more than this; it is for names, not for secrets. Source: FIPS 180-4.
 */

/** Cube roots of the first 80 primes: 64 bits of their fractions. */
const roundConstants = words(
  '428a2f98d728ae227137449123ef65cdb5c0fbcfec4d3b2fe9b5dba58189dbbc3956c25bf348b53859f111f1b605d019' +
    '923f82a4af194f9bab1c5ed5da6d8118d807aa98a303024212835b0145706fbe243185be4ee4b28c550c7dc3d5ffb4e2' +
    '72be5d74f27b896f80deb1fe3b1696b19bdc06a725c71235c19bf174cf692694e49b69c19ef14ad2efbe4786384f25e3' +
    '0fc19dc68b8cd5b5240ca1cc77ac9c652de92c6f592b02754a7484aa6ea6e4835cb0a9dcbd41fbd476f988da831153b5' +
    '983e5152ee66dfaba831c66d2db43210b00327c898fb213fbf597fc7beef0ee4c6e00bf33da88fc2d5a79147930aa725' +
    '06ca6351e003826f142929670a0e6e7027b70a8546d22ffc2e1b21385c26c9264d2c6dfc5ac42aed53380d139d95b3df' +
    '650a73548baf63de766a0abb3c77b2a881c2c92e47edaee692722c851482353ba2bfe8a14cf10364a81a664bbc423001' +
    'c24b8b70d0f89791c76c51a30654be30d192e819d6ef5218d69906245565a910f40e35855771202a106aa07032bbd1b8' +
    '19a4c116b8d2d0c81e376c085141ab532748774cdf8eeb9934b0bcb5e19b48a8391c0cb3c5c95a634ed8aa4ae3418acb' +
    '5b9cca4f7763e373682e6ff3d6b2b8a3748f82ee5defb2fc78a5636f43172f6084c87814a1f0ab728cc702081a6439ec' +
    '90befffa23631e28a4506cebde82bde9bef9a3f7b2c67915c67178f2e372532bca273eceea26619cd186b8c721c0c207' +
    'eada7dd6cde0eb1ef57d4f7fee6ed17806f067aa72176fba0a637dc5a2c898a6113f9804bef90dae1b710b35131c471b' +
    '28db77f523047d8432caab7b40c724933c9ebe0a15c9bebc431d67c49c100d4c4cc5d4becb3e42b6597f299cfc657e2a' +
    '5fcb6fab3ad6faec6c44198c4a475817',
);

/** Square roots of the first 8 primes: 64 bits of their fractions. */
const initialState = words(
  '6a09e667f3bcc908bb67ae8584caa73b3c6ef372fe94f82ba54ff53a5f1d36f1510e527fade682d19b05688c2b3e6c1f' +
    '1f83d9abfb41bd6b5be0cd19137e2179',
);

/** Hashes text in UTF-8. @returns 128 hexadecimal digits. */
export function sha512(text: string): string {
  const data = Buffer.from(text);
  const padded = Buffer.alloc(Math.ceil((data.length + 17) / 128) * 128);
  data.copy(padded);
  padded[data.length] = 0x80;
  // Bits: lengths beyond 32 of them are no names.
  padded.writeUInt32BE(data.length * 8, padded.length - 4);
  const state = initialState.slice();
  for (let offset = 0; offset < padded.length; offset += 128) compress(state, padded, offset);
  return Array.from(state, (word) => (word >>> 0).toString(16).padStart(8, '0')).join('');
}

/** One block. 64-bit words are pairs of 32-bit ones, the high one first. */
function compress(state: Int32Array, data: Buffer, offset: number): void {
  const w = new Int32Array(160);
  for (let i = 0; i < 32; i++) w[i] = data.readInt32BE(offset + 4 * i);
  for (let i = 32; i < 160; i += 2) {
    const [ah, al, bh, bl] = [w[i - 30]!, w[i - 29]!, w[i - 4]!, w[i - 3]!];
    add(w, i, [
      rotate(ah, al, 1) ^ rotate(ah, al, 8) ^ (ah >>> 7),
      rotate(al, ah, 1) ^ rotate(al, ah, 8) ^ ((al >>> 7) | (ah << 25)),
      rotate(bh, bl, 19) ^ rotate(bl, bh, 29) ^ (bh >>> 6),
      rotate(bl, bh, 19) ^ rotate(bh, bl, 29) ^ ((bl >>> 6) | (bh << 26)),
      w[i - 14]!,
      w[i - 13]!,
      w[i - 32]!,
      w[i - 31]!,
    ]);
  }
  const v = state.slice();
  const [t1, t2] = [new Int32Array(2), new Int32Array(2)];
  for (let i = 0; i < 160; i += 2) {
    const [ah, al, bh, bl, ch, cl, , , eh, el, fh, fl, gh, gl, hh, hl] = v as unknown as number[];
    add(t1, 0, [
      hh!,
      hl!,
      rotate(eh!, el!, 14) ^ rotate(eh!, el!, 18) ^ rotate(el!, eh!, 9),
      rotate(el!, eh!, 14) ^ rotate(el!, eh!, 18) ^ rotate(eh!, el!, 9),
      (eh! & fh!) ^ (~eh! & gh!),
      (el! & fl!) ^ (~el! & gl!),
      roundConstants[i]!,
      roundConstants[i + 1]!,
      w[i]!,
      w[i + 1]!,
    ]);
    add(t2, 0, [
      rotate(ah!, al!, 28) ^ rotate(al!, ah!, 2) ^ rotate(al!, ah!, 7),
      rotate(al!, ah!, 28) ^ rotate(ah!, al!, 2) ^ rotate(ah!, al!, 7),
      (ah! & bh!) ^ (ah! & ch!) ^ (bh! & ch!),
      (al! & bl!) ^ (al! & cl!) ^ (bl! & cl!),
    ]);
    v.copyWithin(2, 0, 14);
    add(v, 8, [v[8]!, v[9]!, t1[0]!, t1[1]!]);
    add(v, 0, [t1[0]!, t1[1]!, t2[0]!, t2[1]!]);
  }
  for (let i = 0; i < 16; i += 2) add(state, i, [state[i]!, state[i + 1]!, v[i]!, v[i + 1]!]);
}

/** The high half of a rotation to the right by less than 32 bits; with the halves swapped, the low one, or one by 32 more. */
function rotate(high: number, low: number, bits: number): number {
  return (high >>> bits) | (low << (32 - bits));
}

/** Adds up pairs. */
function add(target: Int32Array, at: number, pairs: readonly number[]): void {
  let [high, low] = [0, 0];
  for (let i = 0; i < pairs.length; i += 2) {
    high += pairs[i]! >>> 0;
    low += pairs[i + 1]! >>> 0;
  }
  target[at] = high + Math.floor(low / 2 ** 32);
  target[at + 1] = low;
}

function words(hex: string): Int32Array {
  return Int32Array.from({ length: hex.length / 8 }, (_, i) =>
    Number.parseInt(hex.slice(8 * i, 8 * i + 8), 16),
  );
}
