/* Loops over floats, written so that compilers make vector instructions of them. Weights lie transposed, [n][m]: a
 * layer reads them once, from front to end. */

/* kernel exp */
/* exp(x) within 2e-7 of its size: 2^k * exp(r) with |r| <= log(2) / 2 (polynomial of Moshier's Cephes, expf). NaN stays.
 */
static float policy_exp(float x)
{
    union { uint32_t bits; float value; } power;
    const float v = x < 88.0f ? (x > -87.0f ? x : -87.0f) : 88.0f;
    const float scaled = v * 1.44269504f;
    const int k = (int)(scaled + (scaled < 0.0f ? -0.5f : 0.5f));
    const float r = (v - (float)k * 0.693359375f) + (float)k * 2.12194440e-4f;
    float sum = 1.9875691500e-4f;
    sum = sum * r + 1.3981999507e-3f;
    sum = sum * r + 8.3334519073e-3f;
    sum = sum * r + 4.1665795894e-2f;
    sum = sum * r + 1.6666665459e-1f;
    sum = sum * r + 5.0000001201e-1f;
    sum = sum * r * r + r + 1.0f;
    power.bits = (uint32_t)(k + 127) << 23;
    return x == x ? sum * power.value : x;
}

/* kernel tanh: exp */
static void policy_tanh(float *restrict x, int n)
{
    int i;
    for (i = 0; i < n; i++) {
        const float e = policy_exp(x[i] < 0.0f ? 2.0f * x[i] : -2.0f * x[i]);
        const float y = (1.0f - e) / (1.0f + e);
        x[i] = x[i] < 0.0f ? -y : y;
    }
}

/* kernel elu: exp */
static void policy_elu(float *restrict x, int n)
{
    int i;
    for (i = 0; i < n; i++) {
        const float below = policy_exp(x[i] > 0.0f ? 0.0f : x[i]) - 1.0f;
        x[i] = x[i] > 0.0f ? x[i] : below;
    }
}

/* kernel relu */
static void policy_relu(float *restrict x, int n)
{
    int i;
    for (i = 0; i < n; i++) x[i] = x[i] < 0.0f ? 0.0f : x[i];
}

/* kernel clip */
static void policy_clip(float *restrict x, float low, float high, int n)
{
    int i;
    for (i = 0; i < n; i++) {
        const float y = x[i] < low ? low : x[i];
        x[i] = y > high ? high : y;
    }
}

/* kernel normalize */
/* y = (x - mean - rest) * inverse: far from zero a float cannot hold the mean exactly, `rest` is what it lacks. */
static void policy_normalize(const float *restrict mean, const float *restrict rest, const float *restrict inverse,
                             const float *restrict x, float *restrict y, int n)
{
    int i;
    for (i = 0; i < n; i++) y[i] = (x[i] - mean[i] - rest[i]) * inverse[i];
}

/* kernel dense */
/* y = weight x + bias, x [n], y [m]. */
static void policy_dense(const float *restrict weight, const float *restrict bias, const float *restrict x,
                         float *restrict y, int n, int m)
{
    const float *restrict w = weight;
    int i, j, left;
    for (i = 0; i < m; i++) y[i] = bias[i];
    for (j = 0; j + 8 <= n; j += 8, w += 8 * m) {
        const float a = x[j], b = x[j + 1], c = x[j + 2], d = x[j + 3];
        const float e = x[j + 4], f = x[j + 5], g = x[j + 6], h = x[j + 7];
        for (i = 0; i < m; i++)
            y[i] += w[i] * a + w[m + i] * b + w[2 * m + i] * c + w[3 * m + i] * d
                  + w[4 * m + i] * e + w[5 * m + i] * f + w[6 * m + i] * g + w[7 * m + i] * h;
    }
    for (left = n % 8; left > 0; left--, j++, w += m)
        for (i = 0; i < m; i++) y[i] += w[i] * x[j];
}

/* kernel dense_int8 */
/* y = scale * (weight x) + bias, scale [m]. */
static void policy_dense_int8(const int8_t *restrict weight, const float *restrict scale, const float *restrict bias,
                              const float *restrict x, float *restrict y, int n, int m)
{
    const int8_t *restrict w = weight;
    int i, j, left;
    for (i = 0; i < m; i++) y[i] = 0.0f;
    for (j = 0; j + 8 <= n; j += 8, w += 8 * m) {
        const float a = x[j], b = x[j + 1], c = x[j + 2], d = x[j + 3];
        const float e = x[j + 4], f = x[j + 5], g = x[j + 6], h = x[j + 7];
        for (i = 0; i < m; i++)
            y[i] += (float)w[i] * a + (float)w[m + i] * b + (float)w[2 * m + i] * c + (float)w[3 * m + i] * d
                  + (float)w[4 * m + i] * e + (float)w[5 * m + i] * f + (float)w[6 * m + i] * g + (float)w[7 * m + i] * h;
    }
    for (left = n % 8; left > 0; left--, j++, w += m)
        for (i = 0; i < m; i++) y[i] += (float)w[i] * x[j];
    for (i = 0; i < m; i++) y[i] = y[i] * scale[i] + bias[i];
}

/* kernel sigmoid: exp */
static float policy_sigmoid(float x)
{
    return 1.0f / (1.0f + policy_exp(-x));
}

/* kernel gate: exp */
static float policy_gate(float x)
{
    return 2.0f / (1.0f + policy_exp(-2.0f * x)) - 1.0f;
}

/* kernel lstm: sigmoid gate */
/* Gates input, forget, cell, output from what the input (read) and the last output (recalled) say, [4n] each.
 * state, next: output [n], cell [n]. */
static void policy_lstm(const float *restrict read, const float *restrict recalled, const float *restrict state,
                        float *restrict next, int n)
{
    int i;
    for (i = 0; i < n; i++) {
        const float in = policy_sigmoid(read[i] + recalled[i]);
        const float forget = policy_sigmoid(read[n + i] + recalled[n + i]);
        const float cell = policy_gate(read[2 * n + i] + recalled[2 * n + i]);
        next[n + i] = forget * state[n + i] + in * cell;
        next[i] = policy_sigmoid(read[3 * n + i] + recalled[3 * n + i]) * policy_gate(next[n + i]);
    }
}

/* kernel gru: sigmoid gate */
/* Gates reset, update, new, [3n]. state, next: output [n]. */
static void policy_gru(const float *restrict read, const float *restrict recalled, const float *restrict state,
                       float *restrict next, int n)
{
    int i;
    for (i = 0; i < n; i++) {
        const float reset = policy_sigmoid(read[i] + recalled[i]);
        const float update = policy_sigmoid(read[n + i] + recalled[n + i]);
        const float new_value = policy_gate(read[2 * n + i] + reset * recalled[2 * n + i]);
        next[i] = (1.0f - update) * new_value + update * state[i];
    }
}

/* kernel history */
/* y: x [n], its first `kept` values in `seen` earlier steps, the last actions [told]; oldest first each. Before the first
 * step all earlier ones were like the present one. state, next: seen * kept values, told values, and 1 once begun if
 * seen > 0. The action of this step is missing in `next`. */
static void policy_history(const float *restrict state, const float *restrict x, float *restrict y,
                           float *restrict next, int n, int seen, int kept, int told, int actions)
{
    const int past = seen * kept;
    const int begun = seen > 0 && state[past + told] > 0.5f;
    int i;
    for (i = 0; i < n; i++) y[i] = x[i];
    for (i = 0; i < past; i++) y[n + i] = begun ? state[i] : x[i % kept];
    for (i = 0; i < told; i++) y[n + past + i] = state[past + i];
    for (i = kept; i < past; i++) next[i - kept] = y[n + i];
    for (i = 0; i < kept && seen > 0; i++) next[past - kept + i] = x[i];
    for (i = actions; i < told; i++) next[past + i - actions] = state[past + i];
    if (seen > 0) next[past + told] = 1.0f;
}

/* kernel bins */
/* y [m]: of each k values of x after one another where the first largest is, as its value in `values` [k]. */
static void policy_bins(const float *restrict values, const float *restrict x, float *restrict y, int m, int k)
{
    int i, j;
    for (i = 0; i < m; i++) {
        int best = 0;
        for (j = 1; j < k; j++)
            if (x[i * k + j] > x[i * k + best]) best = j;
        y[i] = x[i * k + best] == x[i * k + best] ? values[best] : x[i * k + best];
    }
}

/* kernel about */
/* turn := turn [9] times the rotation about an axis [3] of length 1 by an angle (Rodrigues). */
static void policy_about(double *turn, const double *axis, double angle)
{
    const double s = sin(angle), c = 1.0 - cos(angle), x = axis[0], y = axis[1], z = axis[2];
    const double by[9] = {1.0 - c * (y * y + z * z), c * x * y - s * z, c * x * z + s * y,
                          c * x * y + s * z, 1.0 - c * (x * x + z * z), c * y * z - s * x,
                          c * x * z - s * y, c * y * z + s * x, 1.0 - c * (x * x + y * y)};
    double whole[9];
    int i, j, k;
    for (i = 0; i < 3; i++)
        for (j = 0; j < 3; j++) {
            whole[3 * i + j] = 0.0;
            for (k = 0; k < 3; k++) whole[3 * i + j] += turn[3 * i + k] * by[3 * k + j];
        }
    memcpy(turn, whole, sizeof whole);
}

/* kernel turned */
/* y [3] := turn [9] times x [3]. */
static void policy_turned(const double *turn, const double *x, double *y)
{
    int i;
    for (i = 0; i < 3; i++) y[i] = turn[3 * i] * x[0] + turn[3 * i + 1] * x[1] + turn[3 * i + 2] * x[2];
}

/* kernel tool: about turned */
/* Steps [n] of joints at q that move a tool by about `wanted` [m], 3 values or 6 with turns: damped least squares,
 * J^T (J J^T + damping^2 1)^-1 wanted, the square solved by Cholesky. j: room for 6 n numbers. */
static void policy_tool(const int *slides, const double *pos, const double *fixed, const double *axis, const double *zero,
                        const double *tip, double damping, int n, int m, const double *q, const double *wanted,
                        double *j, double *steps)
{
    double at[3] = {0.0, 0.0, 0.0}, turn[9] = {1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0}, way[3];
    double square[36], x[6];
    int i, k, l;
    for (i = 0; i < n; i++) { /* places of the joints in rows 0 to 2, their axes in 3 to 5 */
        double whole[9];
        policy_turned(turn, pos + 3 * i, way);
        for (k = 0; k < 3; k++) at[k] += way[k];
        for (k = 0; k < 9; k++)
            whole[k] = turn[k / 3 * 3] * fixed[9 * i + k % 3] + turn[k / 3 * 3 + 1] * fixed[9 * i + 3 + k % 3] +
                       turn[k / 3 * 3 + 2] * fixed[9 * i + 6 + k % 3];
        memcpy(turn, whole, sizeof whole);
        policy_turned(turn, axis + 3 * i, way);
        if (slides[i])
            for (k = 0; k < 3; k++) at[k] += way[k] * (q[i] - zero[i]);
        else
            policy_about(turn, axis + 3 * i, q[i] - zero[i]);
        for (k = 0; k < 3; k++) {
            j[k * n + i] = at[k];
            j[(3 + k) * n + i] = way[k];
        }
    }
    policy_turned(turn, tip, way);
    for (k = 0; k < 3; k++) at[k] += way[k];
    for (i = 0; i < n; i++) { /* velocities of the tool: linear, then angular */
        const double arm[3] = {at[0] - j[i], at[1] - j[n + i], at[2] - j[2 * n + i]};
        const double a[3] = {j[3 * n + i], j[4 * n + i], j[5 * n + i]};
        for (k = 0; k < 3; k++) {
            j[k * n + i] = slides[i] ? a[k] : a[(k + 1) % 3] * arm[(k + 2) % 3] - a[(k + 2) % 3] * arm[(k + 1) % 3];
            j[(3 + k) * n + i] = slides[i] ? 0.0 : a[k];
        }
    }
    for (k = 0; k < m; k++)
        for (l = 0; l <= k; l++) {
            double sum = k == l ? damping * damping : 0.0;
            for (i = 0; i < n; i++) sum += j[k * n + i] * j[l * n + i];
            for (i = 0; i < l; i++) sum -= square[6 * k + i] * square[6 * l + i];
            square[6 * k + l] = k == l ? sqrt(sum) : sum / square[6 * l + l];
        }
    for (k = 0; k < m; k++) {
        x[k] = wanted[k];
        for (i = 0; i < k; i++) x[k] -= square[6 * k + i] * x[i];
        x[k] /= square[6 * k + k];
    }
    for (k = m - 1; k >= 0; k--) {
        for (i = k + 1; i < m; i++) x[k] -= square[6 * i + k] * x[i];
        x[k] /= square[6 * k + k];
    }
    for (i = 0; i < n; i++) {
        steps[i] = 0.0;
        for (k = 0; k < m; k++) steps[i] += j[k * n + i] * x[k];
    }
}
