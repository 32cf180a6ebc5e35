import test from 'ava';
import { duplicateKey } from '../../../../plugins/tuning/duplicates.ts';

for (const [text, found] of [
  ['{"sysctl":{"a":"1","b":"2","a":"3"}}', 'a'],
  ['{"args":{"cni":{"sysctl":{"x":"1","x":"1"}}}}', 'x'],
  ['{"sysctl":{"a":"1"},"args":{"cni":{"sysctl":{"a":"2"}}}}', undefined],
  ['{"other":{"a":"1","a":"3"},"sysctl":{"a":"1"}}', undefined],
  ['{"sysctl":{"a":"\\"b\\":","b":"{","c":"a"}}', undefined],
  ['{"sysctl":{"a":"1","\\u0061":"2"}}', 'a'],
  ['{"prevResult":{"ips":[{"a":1},{"a":2}]},"sysctl":{}}', undefined],
] as const)
  test(`in ${text}: ${found}`, (t) => {
    t.is(duplicateKey(text, 'sysctl'), found);
  });
