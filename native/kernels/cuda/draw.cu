// dsd::rand and dsd::randn: the same function as in random.cc. One thread makes one block of four.
extern "C" __global__ void dsd_draw(float* out, unsigned k0, unsigned k1, unsigned long long first, const long long* base,
                                    unsigned long long images, unsigned long long elements, int is_normal) {
  const unsigned long long blocks = (elements + 3) / 4, total = images * blocks;
  const unsigned long long origin = first + (base ? (unsigned long long)*base : 0ull);
  for (unsigned long long i = blockIdx.x * (unsigned long long)blockDim.x + threadIdx.x; i < total;
       i += (unsigned long long)gridDim.x * blockDim.x) {
    const unsigned long long image = i / blocks, block = i - image * blocks, number = origin + image;
    unsigned c0 = (unsigned)block, c1 = 0, c2 = (unsigned)number, c3 = (unsigned)(number >> 32), a = k0, b = k1;
    for (int round = 0; round < 10; round++) {
      const unsigned long long p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
      c0 = (unsigned)(p1 >> 32) ^ c1 ^ a;
      c1 = (unsigned)p1;
      c2 = (unsigned)(p0 >> 32) ^ c3 ^ b;
      c3 = (unsigned)p0;
      a += 0x9E3779B9u;
      b += 0xBB67AE85u;
    }
    const unsigned words[4] = {c0, c1, c2, c3};
    float four[4];
    if (is_normal) {
      for (int j = 0; j < 4; j += 2) {
        const double r = sqrt(-2.0 * log(((words[j] >> 8) + 1) * (1.0 / 16777216.0)));
        double s, c;
        sincospi(2.0 * ((words[j + 1] >> 8) * (1.0 / 16777216.0)), &s, &c);
        four[j] = (float)(r * c);
        four[j + 1] = (float)(r * s);
      }
    } else {
      for (int j = 0; j < 4; j++) four[j] = (float)(words[j] >> 8) * (1.0f / 16777216.0f);
    }
    float* to = out + image * elements + block * 4;
    const unsigned long long left = elements - block * 4;
    for (int j = 0; j < 4; j++) {
      if (j < left) to[j] = four[j];
    }
  }
}
