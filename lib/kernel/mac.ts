/** MAC addresses. */

import type { AttributeCodec } from '../netlink/attributes.ts';

/** Reads a MAC address of six bytes. @returns undefined when the text is not one. */
export function parseMac(text: string): Uint8Array | undefined {
  const bytes = parseHardwareAddress(text);
  return bytes?.length === 6 ? bytes : undefined;
}

/**
 * Reads a hardware address of 6, 8 or, for IP over InfiniBand, 20 bytes: with colons, dashes, or a dot after
 * every two bytes, as in "0a58.0a01.0005".
 * @returns undefined when the text is not one.
 */
export function parseHardwareAddress(text: string): Uint8Array | undefined {
  const isOne = /^[0-9a-f]{2}(?:([:-])[0-9a-f]{2}(?:\1[0-9a-f]{2})*)$|^[0-9a-f]{4}(?:\.[0-9a-f]{4})+$/i;
  const bytes = isOne.test(text) ? Buffer.from(text.replaceAll(/[:.-]/g, ''), 'hex') : undefined;
  return bytes && [6, 8, 20].includes(bytes.length) ? Uint8Array.from(bytes) : undefined;
}

/** Writes a MAC address as results carry it: lower case, with colons. */
export function formatMac(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(':');
}

/** A MAC address in the form of {@link formatMac}; any other text stays as it is. */
export function normalizeMac(text: string): string {
  const bytes = parseHardwareAddress(text);
  return bytes ? formatMac(bytes) : text;
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
