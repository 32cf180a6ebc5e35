/** Removes secrets from what will be sent to others. */

import { parseJson } from '../../lib/cni/json.ts';
import {
  annotationsCapability,
  defaultAnnotation,
  genieAnnotation,
  networksAnnotation,
} from '../../lib/networks/pod.ts';
import { isObject } from '../../lib/object.ts';

/** Takes the place of a secret. */
const redacted = 'REDACTED';

const words = 'pass(?:word|wd|phrase|code)?|pwd|secret|token|bearer|credentials?|psk|auth(?:orization)?';
/** Keys such as "password", "dbPwd", "apiToken", "client-key-data", "sslKey", "apikey", "key". */
const secretKey = new RegExp(
  `(?:^|[_.-])(?:${words})(?:$|[_.-])|(?:Pass(?:word|code)?|Pwd|Secret|Token|Bearer|Credentials?|Auth|Psk)(?=$|[A-Z_.-])|key(?=$|[_.-]?(?:data|file|pem|b64|base64)$)|password|secret|token`,
);

/** Whether the value of a key must not be shown. */
function isSecret(key: string): boolean {
  return secretKey.test(key) || secretKey.test(key.toLowerCase());
}

/** The annotations of pods that plugins read. */
const knownAnnotations = new Set([networksAnnotation, defaultAnnotation, genieAnnotation]);

/**
 * Removes secrets from a JSON value: those named by a key, by a "name" beside a "value", or by an option
 * before its value, and whatever looks like a secret in any text. CNI_ARGS are kept, as pairs of libcni's
 * cache or as one text. Of a pod's annotations, only those that plugins read are kept, as others may hold
 * anything.
 */
export function redactValue(value: unknown): unknown {
  if (typeof value === 'string') return redactString(value);
  if (Array.isArray(value))
    return value.map((one, i) => (isSecretOption(value[i - 1]) ? redacted : redactValue(one)));
  if (!isObject(value)) return value;
  const isSecretVariable = typeof value.name === 'string' && isSecret(value.name);
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => {
      if (key === 'cniArgs') return [key, inner];
      if (key === annotationsCapability && isObject(inner)) return [key, redactValue(readByPlugins(inner))];
      return [key, isSecret(key) || (key === 'value' && isSecretVariable) ? redacted : redactValue(inner)];
    }),
  );
}

function readByPlugins(annotations: object): object {
  return Object.fromEntries(Object.entries(annotations).filter(([name]) => knownAnnotations.has(name)));
}

/** Whether the argument after this one is a secret, as after "--password". */
function isSecretOption(value: unknown): boolean {
  return typeof value === 'string' && /^--?[\w.-]+$/.test(value) && isSecret(value);
}

/** JSON within a string is redacted as JSON. */
function redactString(text: string): string {
  if (!/^\s*[[{]/.test(text)) return redactText(text);
  try {
    return JSON.stringify(redactValue(parseJson(text)));
  } catch {
    return redactText(text);
  }
}

/**
 * Removes secrets from text: private keys, passwords in URLs, tokens, and values that are named like secrets.
 * No pattern scans the rest of the text again from each position, so that the time is linear in the length.
 */
export function redactText(text: string): string {
  return withoutBlocks(text)
    .replace(/-----BEGIN ([A-Z ]*)PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)/g, redacted)
    .replace(/\b([a-z][a-z0-9+.-]{0,40}:\/\/[^\s/:@"']*):[^\s/@"']+@/gi, `$1:${redacted}@`)
    .replace(/\b(Bearer|Basic)\s+[\w.~+/=-]{8,}/gi, `$1 ${redacted}`)
    .replace(/\beyJ(?:(?!\beyJ)[\w-]){8,}\.(?:eyJ)?(?:(?!\beyJ)[\w-]){8,}\.[\w-]*/g, redacted)
    .replace(/(^|\s)(--?[\w.-]+)(\s+)[^\s-]\S*/g, (all, before: string, option: string, between: string) =>
      isSecret(option) ? `${before}${option}${between}${redacted}` : all,
    )
    .replace(/([?&])([\w.-]+)=[^\s&#"']+/g, (all, before: string, key: string) =>
      isSecret(key) ? `${before}${key}=${redacted}` : all,
    )
    .replace(
      // In "https://…", the scheme is no key.
      /(["']?)(?<![\w.-])([\w.-]+)\1(\s*(?:=|:(?!\/\/))\s*)("(?:[^"\\\n]|\\.)*"?|'[^'\n]*'?|[^\s,;{}[\]]+)/g,
      (all, quote: string, key: string, between: string) =>
        isSecret(key) ? `${quote}${key}${quote}${between}"${redacted}"` : all,
    );
}

/** A line of YAML that begins a block of text, as in "token: |": what precedes the key, and the key. */
const blockStart = /^(\s*(?:-\s+)*)(["']?)([\w.-]+)\2\s*:\s+(?:[!&]\S+\s+)*[|>][-+\d]*\s*(?:#.*)?$/;

/** Removes YAML's blocks of text that are named like secrets: all lines indented more than the key. */
function withoutBlocks(text: string): string {
  /** Indentation of the key whose block is left out. */
  let depth = Number.POSITIVE_INFINITY;
  return text
    .split('\n')
    .flatMap((line) => {
      if (line.trim() === '' || line.search(/\S/) > depth)
        return depth === Number.POSITIVE_INFINITY ? line : [];
      depth = Number.POSITIVE_INFINITY;
      const [, before, quote, key] = blockStart.exec(line) ?? [];
      if (key === undefined || !isSecret(key)) return line;
      depth = before!.length;
      return `${before}${quote}${key}${quote}: "${redacted}"`;
    })
    .join('\n');
}

/** A JSON file without its secrets; anything else is redacted as text. */
export function redactFile(text: string): string {
  let value: unknown;
  try {
    value = parseJson(text);
  } catch {
    return redactText(text);
  }
  return JSON.stringify(redactValue(value), null, 2);
}
