/** What operators and runtimes hand to commands and to the log, and what of it is sent to others. */

import { join } from 'node:path';
import { readArgs, readCapabilityArgs } from '../../cli/attachment.ts';
import { json } from '../../cli/bugreport/collect.ts';
import { redactFile } from '../../cli/bugreport/redact.ts';
import { readResolvConf } from '../../ipam/host-local/resolv-conf.ts';
import { parseJson } from '../../lib/cni/json.ts';
import { readLogSettings } from '../../lib/cni/log/settings.ts';
import { formatTraceparent, parseTraceparent } from '../../lib/cni/trace-context.ts';
import { mayRefuse, place, type Target } from './target.ts';

/** A secret that may be shown nowhere. */
const secret = 'hunter2secret';
const withSecrets = [
  `{"password":"${secret}","ipam":{"etcd_password":"${secret}"},"args":["--token","${secret}"]}`,
  `url: https://u:${secret}@192.0.2.1/\nkey = "${secret}"\npassword: ${secret}\n`,
  `token: eyJ${secret}.${secret}.${secret}`,
  `saw eyJ${secret}.eyJ${secret}.${secret}`,
];
/** Long text without a match, which must not be searched anew from each of its characters. */
const long = ['a', 'a-', '-eyJaaaaaaaaa', 'a://', '--a', '"', '-----BEGIN PRIVATE KEY-----', '\t'];

export const commandTargets: readonly Target[] = [
  {
    name: 'bug-report',
    samples: [
      ...withSecrets,
      `${'['.repeat(5000)}${']'.repeat(5000)}`,
      ...long.map((text) => text.repeat(100_000 / text.length)),
    ],
    run(input) {
      const text = input.toString('utf8');
      const shown = redactFile(text);
      mayRefuse(() => json(parseJson(text)));
      if (withSecrets.includes(text) && shown.includes(secret))
        throw new Error(`A secret is shown: ${shown}`);
    },
  },
  {
    name: 'log-settings',
    samples: [
      '{"destination":"journald","maxSizeMiB":5,"keep":3}',
      '{"destination":"/var/log/cni.log"}',
      '{}',
    ],
    run(input, directory) {
      const file = join(directory, 'log.json');
      place(file, input);
      for (const wanted of [undefined, input.toString('utf8')])
        mayRefuse(() => {
          const { destination, maxSize, keep } = readLogSettings(wanted, file);
          if (typeof destination !== 'string' || !(maxSize > 0) || !(keep >= 1))
            throw new TypeError(`Read as settings: ${destination}, ${maxSize}, ${keep}`);
        });
    },
  },
  {
    name: 'resolv-conf',
    samples: ['nameserver\t10.1.0.1\ndomain example.com\nsearch a b\noptions ndots:5\n'],
    run(input, directory) {
      place(join(directory, 'resolv.conf'), input);
      const {
        nameservers = [],
        domain = '',
        search = [],
        options = [],
      } = readResolvConf(join(directory, 'resolv.conf'));
      for (const word of [...nameservers, domain, ...search, ...options])
        if (/\s/.test(word)) throw new Error(`Read as a word: ${JSON.stringify(word)}`);
    },
  },
  {
    name: 'command-arguments',
    samples: [
      'IP=10.1.0.2;A=b',
      '{"portMappings":[{"hostPort":80}]}',
      '00-0123456789abcdef0123456789abcdef-0123456789abcdef-01',
    ],
    run(input) {
      const text = input.toString('utf8');
      mayRefuse(() => readArgs(text));
      mayRefuse(() => readCapabilityArgs(text));
      const context = parseTraceparent(text);
      if (context && parseTraceparent(formatTraceparent(context))?.traceId !== context.traceId)
        throw new Error(`Not a trace: ${JSON.stringify(context)}`);
    },
  },
];
