/** Takes secrets out of what is going to be sent to others. */

import { parseJson } from '../../lib/cni/json.ts';
import {
  annotationsCapability,
  defaultAnnotation,
  genieAnnotation,
  networksAnnotation,
} from '../../lib/networks/pod.ts';
import { isObject } from '../../lib/object.ts';

/** What stands in a secret's place. */
const redacted = 'REDACTED';

const words = 'pass(?:word|wd|phrase)?|secret|token|credentials?|psk|auth(?:orization)?|fastopen_key';
/** Keys such as "password", "apiToken", "client-key-data", "sslKey", "key". */
const secretKey = new RegExp(
  `(?:^|[_.-])(?:${words})(?:$|[_.-])|(?:Pass(?:word)?|Secret|Token|Credentials?|Auth|Psk)(?=$|[A-Z_.-])|(?:^|[_.-])(?:private[_.-]?)?key(?=$|[_.-](?:data|file|pem|b64|base64)$)|[a-z0-9]Key(?=$|Data$|File$|Pem$)|password|secret|token|privatekey`,
);

/** Whether the value of a key must not be shown. */
function isSecret(key: string): boolean {
  return secretKey.test(key) || secretKey.test(key.toLowerCase());
}

/** The annotations of pods that plugins read. */
const knownAnnotations = new Set([networksAnnotation, defaultAnnotation, genieAnnotation]);

/**
 * Takes secrets out of a value of JSON: what has the name of one, as a key, as a "name" beside a "value", or
 * as an option before its value, and what looks like one in any text. CNI_ARGS are kept, as pairs of libcni's
 * cache or as one text. Annotations of pods are left out but those that plugins read: others may be anything.
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

/** Whether the argument after it is a secret, as after "--password". */
function isSecretOption(value: unknown): boolean {
  return typeof value === 'string' && /^--?[\w.-]+$/.test(value) && isSecret(value);
}

/** JSON within a string is taken as such. */
function redactString(text: string): string {
  if (!/^\s*[[{]/.test(text)) return redactText(text);
  try {
    return JSON.stringify(redactValue(parseJson(text)));
  } catch {
    return redactText(text);
  }
}

/**
 * Takes secrets out of text: private keys, passwords in URLs, tokens, and what has the name of a secret.
 * Nothing is looked at once for each place in front of it, so that long text takes no longer than its length.
 */
export function redactText(text: string): string {
  return text
    .replace(/-----BEGIN ([A-Z ]*)PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)/g, redacted)
    .replace(/\b([a-z][a-z0-9+.-]{0,40}:\/\/[^\s/:@"']*):[^\s/@"']+@/gi, `$1:${redacted}@`)
    .replace(/\b(Bearer|Basic)\s+[\w.~+/=-]{8,}/gi, `$1 ${redacted}`)
    .replace(/\beyJ(?:(?!\beyJ)[\w-]){8,}\.(?:eyJ)?(?:(?!\beyJ)[\w-]){8,}\.[\w-]*/g, redacted)
    .replace(/(^|\s)(--?[\w.-]+)(\s+)[^\s-]\S*/g, (all, before: string, option: string, between: string) =>
      isSecret(option) ? `${before}${option}${between}${redacted}` : all,
    )
    .replace(
      /(["']?)(?<![\w.-])([\w.-]+)\1(\s*[:=]\s*)("(?:[^"\\\n]|\\.)*"?|'[^'\n]*'?|[^\s,;{}[\]]+)/g,
      (all, quote: string, key: string, between: string) =>
        isSecret(key) ? `${quote}${key}${quote}${between}"${redacted}"` : all,
    );
}

/** A file of JSON without its secrets; what is no JSON is taken as text. */
export function redactFile(text: string): string {
  let value: unknown;
  try {
    value = parseJson(text);
  } catch {
    return redactText(text);
  }
  return JSON.stringify(redactValue(value), null, 2);
}
