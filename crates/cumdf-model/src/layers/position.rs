//! Sinusoidal positions, "Attention Is All You Need" (Vaswani et al., NeurIPS 2017), section 3.5.

use tch::{Device, Kind, Tensor};

/// `[T, d]`: `sin(t / 10000^(2i/d))` at channel 2i, the cosine at 2i + 1; `d` even.
pub(crate) fn sinusoid(steps: i64, dim: i64, device: Device) -> Tensor {
    let time = Tensor::arange(steps, (Kind::Double, device)).unsqueeze(1); // [T, 1]
    let even = Tensor::arange_start_step(0, dim, 2, (Kind::Double, device)); // [d / 2]
    let angle = time * (even * (-(10_000f64.ln()) / dim as f64)).exp(); // [T, d / 2]
    Tensor::stack(&[angle.sin(), angle.cos()], 2).reshape([steps, dim]).to_kind(Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_interleave_sine_and_cosine() {
        let pe = sinusoid(3, 4, Device::Cpu);
        let want = [2f64.sin(), 2f64.cos(), 0.02f64.sin(), 0.02f64.cos()];
        for (channel, want) in want.iter().enumerate() {
            let got = pe.double_value(&[2, channel as i64]);
            assert!((got - want).abs() < 1e-6, "channel {channel}: {got} for {want}");
        }
    }
}
