/** MAC addresses. */

import type { AttributeCodec } from '../netlink/attributes.ts';

/** Reads a MAC address of six bytes. @returns undefined when the text is not one. */
export function parseMac(text: string): Uint8Array | undefined {
  if (!/^[0-9a-f]{2}(?:([:-])[0-9a-f]{2})(?:\1[0-9a-f]{2}){4}$/i.test(text)) return undefined;
  return Uint8Array.from(text.split(/[:-]/), (byte) => Number.parseInt(byte, 16));
}

/** Writes a MAC address as results carry it: lower case, with colons. */
export function formatMac(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(':');
}

/** An attribute with a MAC address. */
export const macAddress: AttributeCodec<string> = {
  encode(text) {
    const bytes = parseMac(text);
    if (bytes) return bytes;
    throw new Error(`"${text}" is not a valid MAC address. Write it like "0a:58:0a:01:00:05"`);
  },
  decode: formatMac,
};
